"""Settings of every test run, that of the tests/ and that of the examples in docstrings."""

import atexit
import os
import shutil
import tempfile

# These must be set before anything imports TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Most of the time goes into compilation. It takes less time with fewer optimisations, with LLVM's own fusion emitters
# instead of those based on MLIR, and with one module instead of many. (Without optimisation some attacks take minutes.)
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 "
    "--xla_llvm_disable_expensive_passes=true",
)

# The processes of a session share what XLA has compiled. The first of them, which starts the others, removes it.
if "TF_XLA_FLAGS" not in os.environ:
    _compiled = tempfile.mkdtemp(prefix="wasser_tf_xla_")
    atexit.register(shutil.rmtree, _compiled, ignore_errors=True)
    os.environ["TF_XLA_FLAGS"] = (
        f"--tf_xla_persistent_cache_directory={_compiled} --tf_xla_persistent_cache_device_types=CPU,XLA_CPU_JIT"
    )

import gc
import pathlib
from collections.abc import Iterator

import keras
import pytest
from tensorflow.python.framework.config import disable_op_determinism
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

_PACKAGE = pathlib.Path(__file__).parent / "wasser_tf"
# Full collections, which the many graphs of the tests cause, need not look at what the imports above made.
gc.freeze()


class _ByFile(LoadScopeScheduling):
    """Keeps each file on one worker, and all files of tests/serving, which share one export, on the same worker."""

    def _split_scope(self, nodeid: str) -> str:
        folder, _, file = nodeid.partition("::")[0].rpartition("/")
        return folder if folder == "tests/serving" else f"{folder}/{file}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Replaces --dist=loadgroup, whose groups pytest 9.2 does not take from xdist 3.8."""
    return _ByFile(config, log)


def pytest_ignore_collect(collection_path: pathlib.Path, config: pytest.Config) -> bool | None:
    """Restricts --doctest-modules to the package.

    The option collects every Python file. Those of tests/ that contain no tests are programs and fixtures, and some of
    them have side effects on import.
    """
    if collection_path in (_PACKAGE / "commands", _PACKAGE / "starter", _PACKAGE / "__main__.py"):
        # Each command defines its flags on import, under names that others use too; the others start them, and change
        # the settings of the process.
        return True
    if collection_path.parent == _PACKAGE / "bridges" and collection_path.stem in ("art", "foolbox", "torch"):
        # They, or their examples, import libraries which only tests/extras/ has; its tests run the examples.
        return True
    if collection_path.suffix != ".py" or _PACKAGE in collection_path.parents:
        return None
    return None if collection_path.name.endswith("_test.py") else True


@pytest.fixture(autouse=True)
def _fixed_seed() -> Iterator[None]:
    keras.utils.set_random_seed(0)
    yield
    # A run in this process enables it for good, and Keras then refuses XLA to the tests that follow.
    disable_op_determinism()
