import os

# Before anything imports TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Most of the time goes into compiling: less of it with fewer optimisations, with LLVM's own emitters of fusions and not
# those by way of MLIR, and with one module and not many. (Without any optimisation some attacks run for minutes.)
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)

import pathlib

import keras
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling


class _ByFile(LoadScopeScheduling):
    """Keeps a file on one worker, and those of serving, which share one export, together."""

    def _split_scope(self, nodeid: str) -> str:
        folder, _, file = nodeid.partition("::")[0].rpartition("/")
        return folder if folder == "tests/serving" else f"{folder}/{file}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """In the place of --dist=loadgroup, whose groups pytest 9.2 does not take from xdist 3.8."""
    return _ByFile(config, log)


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
