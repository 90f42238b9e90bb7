import os

# Before anything imports TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Most of the time goes into compiling; to optimise less saves a fifth of that.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")

import pathlib

import keras
import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps a file on one worker (--dist=loadgroup), and those of serving, which share one export, together."""
    for item in items:
        folder = item.path.parent
        item.add_marker(pytest.mark.xdist_group("serving" if folder.name == "serving" else str(item.path)))


@pytest.fixture(autouse=True)
def _fixed_seed():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder that holds tfds/, checkpoints/ and published/."""
    folder = os.environ.get("WASSER_TF_SHARED_DATA")
    if not folder:
        pytest.skip("WASSER_TF_SHARED_DATA is not set: it names the folder of tfds/, checkpoints/ and published/")
    if not pathlib.Path(folder, "tfds").is_dir():
        pytest.skip(f"WASSER_TF_SHARED_DATA={folder} holds no tfds/")
    return pathlib.Path(folder).resolve()
