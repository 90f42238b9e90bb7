"""Generates bad input and checks that every entry point and every flag answers it with a documented error.

Documented errors are ValueError and OSError for the library, and a message with exit code 1 for a binary. Everything
else is undocumented: other exceptions, tracebacks, timeouts, and accepted input that must be rejected.
"""

import contextlib
import io
import itertools
import pathlib
import random
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from wasser_tf.runtime import storage

BINARIES = ("attack", "evaluate", "export", "leaderboard", "predict", "publish", "reproduce", "train")
# The longest time until an answer: CPU time of this process, and wall time on a machine that may be busy.
CPU_SECONDS, SECONDS = 30.0, 300.0

_WORDS = ("", "x", "-1", "nan", "1e3", "0xg", "--", "1.5.2", "é", "None", "9" * 30, "-" + "9" * 30)
_NOT_WHOLE = tuple(word for word in _WORDS if word not in ("1e3",)) + ("2.5", "inf")
_NOT_NUMBERS = ("", "x", "nan", "inf", "-inf", "-1", "1,2", "é", "1e999")
_NOWHERE = ("", "nowhere", "/nowhere/at/all", "../../../../nowhere", "/dev/null", "é\u202e", "a" * 5000, "~nobody/x")
_BAD_FLAGS: dict[str, tuple[str, ...]] = {
    "epsilon": _NOT_NUMBERS,
    "p": (*_NOT_NUMBERS, "0"),
    "capacity": ("x", "nan", "inf", "-1", "0.5"),
    "kernel_size": ("x", "2", "-3", "1.5", "é"),
    "normalize_mass": ("maybe", "2", "é"),
    "iterations": (*_NOT_WHOLE, str(2**31)),
    "attack_step": (*_NOT_NUMBERS, "0"),
    "attack_loss": ("hinge", "", "é"),
    "restarts": (*_NOT_WHOLE, "0", "100000"),
    "alpha": _NOT_NUMBERS,
    "seed": _NOT_WHOLE,
    "dataset": (
        "nope",
        "../mnist",
        "mnist/none",
        "kaggle:mnist",
        "a" * 5000,
        "mnist:9.9.9",
        "é",
        "/etc/passwd",
        "glue",
    ),
    "split": ("testing", "", "é"),
    "num_examples": (*_NOT_WHOLE, "0", "100000"),
    "indices": _NOWHERE,
    "original_index": _NOWHERE,
    "batch_size": tuple(word for word in _NOT_WHOLE if word != "9" * 30) + ("0",),
    "attack": (
        "nope",
        ":",
        "mirror_ascent:iterations=x",
        "mirror_ascent:=",
        "mirror_ascent:p=1",
        "mirror_ascent:step_size=-1",
    ),
    "radii": ("x", "nan", "-1", "0.1,x", "inf", "0.1,0.1"),
    "model": _NOWHERE,
    "output_dir": ("/dev/null/x", "/proc/nowhere/x", "/dev/null"),
    "input_range": ("", "x", "0", "255,0", "-1,1", "nan,1", "0,inf", "0,1,2"),
    "data_format": ("nchw", ""),
    "returns": ("scores", ""),
    "signature": ("nope", "é"),
    "output": ("nope", "99", "é"),
    "import": ("no.such.module", "é", "..", "a" * 5000),
    "flagfile": ("nowhere", "/dev/null/x"),
    "nonsense": ("1", ""),
}
_MORE: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {
        "model": ("nope", "", "é"),
        "attack": ("nope", "random_plan:iterations=x", ":"),
        "omega": (*_NOT_NUMBERS, "2"),
        "standard_epochs": _NOT_WHOLE[:-1],
        "epochs": (*(word for word in _NOT_WHOLE if word != "9" * 30), "0"),
        "optimizer": ("nope", "", "optimizer"),
        "learning_rate": (*_NOT_NUMBERS, "0"),
        "precision": ("float8", ""),
        "jit_compile": ("maybe",),
        "distribute": ("nope", "multi_worker"),
        "attack_chunk": (*(word for word in _NOT_WHOLE if word != "9" * 30), "0"),
        "batch_size": (*_NOT_WHOLE, "0", "100000"),
        "num_attack_examples": tuple(word for word in _NOT_WHOLE if word != "9" * 30),
        "num_examples": (),
        "split": (),
        "indices": (),
        "original_index": (),
    },
    "evaluate": {
        "attack": (),
        "model": (),
        "epsilon": (),
        "attacks": ("nope", "", "mirror_ascent:iterations=x", "random_plan,nope"),
        "models": (*_NOWHERE, "a=nowhere,a=nowhere", "=", "a="),
        "main_attack": ("nope",),
        "verify_examples": tuple(word for word in _NOT_WHOLE if word != "9" * 30),
        "sanity_examples": tuple(word for word in _NOT_WHOLE if word != "9" * 30),
    },
    "export": {
        "base_dir": ("/dev/null/x", "/proc/nowhere/x"),
        "name": ("", "../x", "a/b", "é", "1", "a b", "a\n"),
        "version": (*(word for word in _NOT_WHOLE if word != "9" * 30), "0"),
        "class_names": ("a,b", "a"),
        "image_shape": ("x", "1,2", "-1,8,1", "100000,100000,3", "8,8", "0,0,0"),
        "robustness_largest": _NOT_NUMBERS,
        "robustness_rounds": (*_NOT_WHOLE, "0"),
        "robustness_iterations": (*_NOT_WHOLE, "0"),
    },
    # These binaries do not have the flags with empty lists.
    "leaderboard": {
        "attack": (),
        "model": (),
        "epsilon": (),
        "attacks": ("nope", "", "mirror_ascent:iterations=x", "random_plan,nope"),
        "models": (*_NOWHERE, "a=nowhere,a=nowhere", "=", "a="),
        "results_dir": ("/dev/null/x", "/proc/nowhere/x"),
    },
    "publish": {
        "attack": (),
        "model": (),
        "epsilon": (),
        "attacks": ("nope", "", "mirror_ascent:iterations=x", "random_plan,nope"),
        "run": _NOWHERE,
        "name": ("", "../x", "a/b", "é", "a b", "a\n", "A"),
        "file": ("nowhere.keras", "config.json", "../..", ""),
    },
    "reproduce": {
        "attack": (),
        "experiment": ("nope", "", "table1,nope"),
        "dataset": ("nope", "", "é"),
        "model": ("nope", "", "é"),
        "standard": _NOWHERE,
        "pgd": _NOWHERE,
        "wasser_train": _NOWHERE,
        "others": (*_NOWHERE[1:], "standard=x", "a=nowhere,a=nowhere", "="),
        "recipe": ("nope", ""),
        "attacks": ("nope", "random_plan,nope"),
        "standard_epochs": tuple(word for word in _NOT_WHOLE if word != "9" * 30),
        "epochs": (*(word for word in _NOT_WHOLE if word != "9" * 30), "0"),
        "omega_epochs": (*(word for word in _NOT_WHOLE if word != "9" * 30), "0"),
        "omegas": (*_NOT_NUMBERS, "2"),
        "attack_iterations": _NOT_WHOLE,
        "original_index": _NOWHERE,
        "publish_dir": ("/dev/null/x", "/proc/nowhere/x"),
    },
    "predict": {
        "server": ("", "nowhere", "localhost:x", "localhost:99999", "é:1", "http://localhost:1"),
        "protocol": ("soap", ""),
        "timeout": (*_NOT_NUMBERS, "0"),
        "retries": tuple(word for word in _NOT_WHOLE if word != "9" * 30),
        "images": ("nowhere.png", "nowhere.npy", "nowhere.gif", "/dev/null"),
        "version": tuple(word for word in _NOT_WHOLE if word != "9" * 30),
    },
}
# A valid command of each binary, in which one flag is replaced by a bad value.
_GOOD: dict[str, Callable[[pathlib.Path], dict[str, str]]] = {
    "attack": lambda at: {"model": f"{at}/good.keras", "output_dir": f"{at}/out", "attack": "random_plan"},
    "evaluate": lambda at: {"models": f"a={at}/good.keras", "output_dir": f"{at}/out", "attacks": "mirror_ascent"},
    "export": lambda at: {"model": f"{at}/good.keras", "base_dir": f"{at}/out", "name": "m", "robustness": "true"},
    "leaderboard": lambda at: {
        "models": f"a={at}/good.keras",
        "output_dir": f"{at}/out",
        "results_dir": f"{at}/out/page",
        "attacks": "mirror_ascent",
    },
    "publish": lambda at: {
        "run": f"{at}/run",
        "name": "nothing",
        "output_dir": f"{at}/out",
        "results_dir": f"{at}/out/page",
        "attacks": "mirror_ascent",
    },
    # One classifier is not given, so that the settings of its training are checked too.
    "reproduce": lambda at: {
        "experiment": "table1,fig4",
        "quick": "true",
        "standard": f"{at}/good.keras",
        "pgd": f"{at}/good.keras",
        "output_dir": f"{at}/out",
    },
    "predict": lambda at: {
        "model": "m",
        "server": "localhost:1",
        "dataset": "digits",
        "retries": "0",
        "timeout": "0.2",
    },
    "train": lambda at: {"output_dir": f"{at}/out", "attack": "mirror_ascent"},
}


class Outcome(NamedTuple):
    """The outcome of one bad input.

    Attributes:
      what: "refused", or the reason why the answer is undocumented.
      given: The input.
    """

    what: str
    given: str


def fuzz_binary(name: str, folder: pathlib.Path, count: int, seed: int = 0) -> list[Outcome]:
    """Runs a binary with bad flags, in this process. Nothing else may use absl's flags in the process.

    Args:
      name: One of `BINARIES`.
      folder: Folder that contains good.keras, a classifier of the digits.
      count: Number of commands. Every value of every flag is used once before any is used twice.
      seed: Seed of the order.
    """
    import importlib

    from absl import flags

    from wasser_tf.commands import _flags

    module = importlib.import_module(f"wasser_tf.commands.{name}")
    chance = random.Random(f"{seed} {name}")
    bad = {**_BAD_FLAGS, **_MORE.get(name, {})}
    known = set(flags.FLAGS)
    pairs = [(flag, word) for flag, words in bad.items() for word in words if flag in known or flag == "nonsense"]
    chance.shuffle(pairs)
    if name == "publish":
        _training_run(folder / "run", folder / "good.keras")
    outcomes = []
    for flag, word in itertools.islice(itertools.cycle(pairs), count):
        given = {**_GOOD[name](folder), flag: word}
        shutil.rmtree(folder / "out", ignore_errors=True)
        sys.argv = [f"{name}.py", *(f"--{key}={value}" for key, value in given.items())]
        for key in flags.FLAGS:
            flags.FLAGS[key].unparse()
        errors = io.StringIO()
        taken = stopwatch()
        code: Any = 0
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(errors):
            try:
                _flags.run(module.main)
            except SystemExit as leaving:
                # absl exits with the return value of main, None.
                code = leaving.code or 0
                if isinstance(code, str):
                    print(code, file=errors)
                    code = 1
            except BaseException:
                traceback.print_exc(file=errors)
                code = 99
        outcomes.append(Outcome(taken() or _judge(code, errors.getvalue()), f"{name} --{flag}={word[:60]}"))
    return outcomes


def stopwatch() -> Callable[[], str]:
    """Returns a function that returns the time since this call if it is too long, else ""."""
    cpu, clock = time.process_time(), time.monotonic()

    def taken() -> str:
        used, passed = time.process_time() - cpu, time.monotonic() - clock
        return f"took {used:.0f} s of CPU, {passed:.0f} s" if used > CPU_SECONDS or passed > SECONDS else ""

    return taken


def _judge(code: Any, text: str) -> str:
    if "Traceback" in text or code not in (0, 1):
        return f"exit {code}: {text.strip()[-300:]}"
    if code == 0:
        return "accepted"
    return "refused" if text.strip() else "exit without a message"


def _training_run(folder: pathlib.Path, classifier: pathlib.Path) -> None:
    """Creates a folder that bin/publish.py accepts as a run of bin/train.py."""
    from wasser_tf import data
    from wasser_tf.attacks import RandomPlan
    from wasser_tf.runs import train
    from wasser_tf.threat_model import ThreatModel
    from wasser_tf.training.config import TrainConfig

    config = TrainConfig(output_dir=str(folder), attack=RandomPlan(ThreatModel()), model="linear")
    storage.write_json(folder / "config.json", train._metadata(config, data.load("digits")))
    shutil.copyfile(classifier, folder / "best.keras")
