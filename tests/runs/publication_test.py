"""Publications: the settings passed on, and the card. Nothing is attacked or trained."""

import dataclasses
import pathlib

import pytest

from tests.fixtures.publishing import leaderboard_entry
from wasser_tf import models, pretrained
from wasser_tf.publishing import card
from wasser_tf.runs import publish
from wasser_tf.runs.publish import Publication


def test_a_publication_passes_on_its_settings(run, board, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "shelf")
    added = []
    monkeypatch.setattr(publish, "add_to_leaderboard", lambda *given: added.append(given) or "the entry")
    written = []
    monkeypatch.setattr(
        card, "write_card", lambda *given: written.append(given) or (tmp_path / "shelf").mkdir(exist_ok=True)
    )
    models.build("mlp", (8, 8, 1), 10, seed=0).save(run / "standard.keras")
    config = Publication(run=str(run), name="mine", board=board, file="standard.keras")
    path = publish.publish(config, log=print)
    packed = pathlib.Path(board.output_dir) / "mine.keras"
    assert path == tmp_path / "shelf" / "mine.keras" and path.read_bytes() == packed.read_bytes()
    ((given_board, name, file, metadata, log),) = added
    assert given_board is board and (name, file, log) == ("mine", str(packed), print)
    assert metadata == "mlp, standard training, seed 5; comes with the package."
    ((place, described, training, entry),) = written
    classifier = models.load_classifier(packed)
    assert place == path and entry == "the entry" and training == card.training_of(run)
    assert described == {
        "model": "mlp",
        "image_shape": [8, 8, 1],
        "num_classes": 10,
        "num_weights": classifier.count_params(),
        "bytes": packed.stat().st_size,
        "file": "standard.keras",
    }
    publish.publish(dataclasses.replace(config, file="best.keras", name="other"), "Described.")
    assert added[1][3] == "Described."
    publish.publish(dataclasses.replace(config, file="best.keras", name="other"))
    assert added[2][3] == "linear, WasserTrain, mirror_ascent, seed 5; comes with the package."


@pytest.mark.parametrize("name", ["", "A", "a-b", "a b", "a/b", 3])
def test_invalid_names_are_refused(board, name):
    with pytest.raises(ValueError, match="name must consist of lower-case letters, digits and underscores, got"):
        Publication(run="r", name=name, board=board)


def test_the_card(run):
    training = {**card.training_of(run), "versions": {"keras": "3", "tensorflow": "2"}, "commit": "d" * 40}
    classifier = {
        "model": "linear", "image_shape": [8, 9, 1], "num_weights": 12345, "num_classes": 10, "bytes": 67_890,
        "file": "best.keras",
    }  # fmt: skip
    evaluation = {
        **leaderboard_entry("mine", {"0.1": 0.5, "0.3": 0.25}), "seed": 6, "least_feasible_share": 0.75,
        "fingerprint": "f" * 64, "command": "python y", "commit": "e" * 40,
    }  # fmt: skip
    text = card.card_markdown(
        {"name": "mine", "classifier": classifier, "training": training, "evaluation": evaluation}
    )
    for part in (
        "# mine\n\nlinear, 12,345 weights, from 8×9×1 images in [0, 1]\nto 10 logits; 0.07 MB,",
        'wasser_tf.load_pretrained("mine")',
        "| accuracy          | 12,000 images of d test |\n",
        "| natural           |                 90.00 % |\n| robust at ε = 0.1 |",
        "50.00 % |\n| robust at ε = 0.3 |",
        "Attacked with x, 3 iterations, seed\n6; every adversarial example is checked\n(75.00 % feasible). "
        "Measured on this file",
        f"`{'f' * 16}…`) at commit eeeeeeee:\n\n```bash\npython y\n```",
        "`best.keras` of this run, seed 5, at commit dddddddd:\n\n```bash\npython bin/train.py ",
        "p = 2 (cost Euclidean^p in pixels), local 5×5 plan, capacity 1, one budget for all channels, none crossed. "
        "Versions: keras 3, tensorflow 2.",
    ):
        assert part in text, part
    del classifier["model"]
    assert "\nlinear, 12,345" in card.card_markdown(
        {"name": "mine", "classifier": classifier, "training": training, "evaluation": evaluation}
    )
