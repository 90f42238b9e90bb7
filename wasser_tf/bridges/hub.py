"""The Hugging Face hub: classifiers are uploaded and loaded by Keras, with our model card in the format of the hub."""

from collections.abc import Mapping
from typing import Any

import keras

from wasser_tf.bridges.needed import check_installed
from wasser_tf.models.loading import HUB_PREFIX


def push_to_hub(classifier: keras.Model, name: str, card: Mapping[str, Any] | None = None, text: str = "") -> str:
    """Uploads a classifier to the Hugging Face hub; `wasser_tf.load_pretrained` loads it by the address returned.

    Log in first with `huggingface-cli login`, or set HF_TOKEN.

    Args:
      classifier: The classifier.
      name: The repository, "user/name" or "hf://user/name".
      card: The model card, as `wasser_tf.pretrained.card` returns it; its accuracies become results of the hub.
      text: The card in Markdown, below the header.

    Returns:
      The address "hf://user/name".

    Raises:
      ImportError: huggingface_hub is not installed.
      ValueError: The name is not "user/name".
    """
    check_installed("hub", "huggingface_hub")
    import huggingface_hub

    repository = name.removeprefix(HUB_PREFIX)
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise ValueError(f"name must be user/name, as the hub calls its repositories, got {name!r}.")
    address = HUB_PREFIX + repository
    classifier.save(address, zipped=False)
    # Keras uploads a card of its own, which this one replaces.
    huggingface_hub.HfApi().upload_file(
        path_or_fileobj=hub_card(repository, card or {}, text).encode(),
        path_in_repo="README.md",
        repo_id=repository,
        commit_message="Add the model card.",
    )
    return address


def hub_card(repository: str, card: Mapping[str, Any], text: str = "") -> str:
    """Returns a model card with the header of the hub.

    Args:
      repository: The repository, "user/name".
      card: The model card, or an entry of the leaderboard: `dataset`, `natural_accuracy` and `robust_accuracy` are used
        where it has them.
      text: The card in Markdown.

    Example:
    >>> card = {"dataset": "mnist test", "natural_accuracy": 0.99, "robust_accuracy": {"0.1": 0.9}}
    >>> print(hub_card("me/lenet", card))  # doctest: +ELLIPSIS
    ---
    library_name: keras
    pipeline_tag: image-classification
    tags:
    - adversarial-robustness
    - wasserstein
    datasets:
    - mnist
    model-index:
    - name: lenet
      results:
      - task:
          type: image-classification
        dataset:
          name: mnist
          type: mnist
        metrics:
        - type: accuracy
          name: natural accuracy
          value: 0.99
        - type: accuracy
          name: robust accuracy at ε = 0.1
          value: 0.9
    ---
    <BLANKLINE>
    # lenet
    ...
    """
    name = repository.rpartition("/")[2]
    card = card.get("evaluation", card)
    lines = ["---", "library_name: keras", "pipeline_tag: image-classification", "tags:"]
    lines += ["- adversarial-robustness", "- wasserstein"]
    scores = {"natural accuracy": card.get("natural_accuracy")}
    scores |= {f"robust accuracy at ε = {key}": value for key, value in card.get("robust_accuracy", {}).items()}
    scores = {key: value for key, value in scores.items() if value is not None}
    if "dataset" in card:
        dataset = card["dataset"].split()[0]
        lines += ["datasets:", f"- {dataset}"]
        if scores:
            lines += ["model-index:", f"- name: {name}", "  results:", "  - task:", "      type: image-classification"]
            lines += ["    dataset:", f"      name: {dataset}", f"      type: {dataset}", "    metrics:"]
        for metric, value in scores.items():
            lines += ["    - type: accuracy", f"      name: {metric}", f"      value: {value}"]
    lines += ["---", "", f"# {name}", "", "```python", "import wasser_tf", ""]
    lines += [f'classifier = wasser_tf.load_pretrained("{HUB_PREFIX}{repository}")', "```", ""]
    return "\n".join(lines) + (f"\n{text}\n" if text else "")
