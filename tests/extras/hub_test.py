"""The Hugging Face hub, with a folder in its place: nothing leaves the machine."""

import pathlib
import shutil

import numpy as np
import pytest

import wasser_tf
from wasser_tf.bridges.hub import push_to_hub

huggingface_hub = pytest.importorskip(
    "huggingface_hub", reason="huggingface_hub is not installed: pip install 'wasser_tf[hub]'"
)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder that Keras and the bridge take for the hub."""

    class Api:
        def __init__(self, **options):
            pass

        def create_repo(self, repo_id, exist_ok):
            (tmp_path / repo_id).mkdir(parents=True, exist_ok=exist_ok)
            return huggingface_hub.RepoUrl(f"hf://{repo_id}")

        def upload_folder(self, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, tmp_path / repo_id, dirs_exist_ok=True)

        def upload_file(self, path_or_fileobj, path_in_repo, repo_id, commit_message):
            (tmp_path / repo_id / path_in_repo).write_bytes(path_or_fileobj)

    def download(repo_id, **options):
        if not (tmp_path / repo_id).exists():
            raise huggingface_hub.errors.LocalEntryNotFoundError(f"there is no {repo_id}")
        return str(tmp_path / repo_id)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return tmp_path


def test_a_classifier_goes_there_and_back(hub, images):
    classifier = wasser_tf.load_pretrained("mnist_wassertrain")
    address = push_to_hub(classifier, "me/robust", wasser_tf.pretrained.card("mnist_wassertrain"), "More.")
    assert address == "hf://me/robust"
    written = pathlib.Path(hub, "me", "robust", "README.md").read_text()
    assert written.startswith("---\nlibrary_name: keras\n") and written.endswith("\nMore.\n")
    assert "name: robust accuracy at ε = 0.3\n      value: 0.6347\n" in written
    loaded = wasser_tf.load_pretrained(address)
    batch = np.random.default_rng(0).random((2, 28, 28, 1), np.float32)
    np.testing.assert_allclose(loaded(batch), classifier(batch), rtol=1e-5)


def test_a_name_that_is_none_is_refused(hub):
    with pytest.raises(ValueError, match="name must be user/name, .* got 'robust'"):
        push_to_hub(wasser_tf.load_pretrained("mnist_wassertrain"), "robust")
    with pytest.raises(ValueError, match="hf://me/nothing cannot be loaded .*check the name, the network"):
        wasser_tf.load_pretrained("hf://me/nothing")
