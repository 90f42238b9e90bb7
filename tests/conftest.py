import os
import pathlib

import pytest


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder that contains tfds/, checkpoints/ and published/."""
    folder = os.environ.get("WASSER_TF_SHARED_DATA")
    if not folder:
        pytest.skip("WASSER_TF_SHARED_DATA is not set. Set it to the folder of tfds/, checkpoints/ and published/.")
    if not pathlib.Path(folder, "tfds").is_dir():
        pytest.skip(f"WASSER_TF_SHARED_DATA={folder} does not contain tfds/")
    return pathlib.Path(folder).resolve()
