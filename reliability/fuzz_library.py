"""Generates bad arguments and bad files for the entry points of the library; see fuzz.py."""

import contextlib
import inspect
import io
import itertools
import json
import pathlib
import random
import traceback
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from reliability.fuzz import Outcome, stopwatch


def fuzz_library(folder: pathlib.Path, count: int, seed: int = 0) -> list[Outcome]:
    """Calls the entry points of the library with bad arguments and bad files.

    Args:
      folder: Folder that contains good.keras; other files are written to it.
      count: Number of calls.
      seed: Seed of the choice.
    """
    chance = random.Random(seed)
    cases = [*_argument_cases(folder), *_file_cases(folder, chance)]
    chance.shuffle(cases)
    outcomes = []
    for name, call, must in itertools.islice(cases, count):
        taken = stopwatch()
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                call()
            what = "accepted" if must else "refused"
        except (ValueError, OSError) as error:
            message = str(error).strip()
            what = "refused" if message and "Traceback" not in message else f"without a message: {error!r}"
        except Exception as error:
            what = f"{type(error).__name__}: {str(error)[:200]} at {traceback.extract_tb(error.__traceback__)[-1]}"
        outcomes.append(Outcome(taken() or what, name))
    return outcomes


# None of these is a valid argument.
_JUNK = (None, "x", "", b"x", [], {}, (), object(), float("nan"), float("inf"), -1, -0.5, 2**70, [None], 1j, lambda: 0)


def _argument_cases(folder: pathlib.Path) -> Iterator[tuple[str, Callable[[], Any], bool]]:
    """Yields the name, the call, and False: the call may also be accepted, because some values are valid."""
    from wasser_tf import RadiusSchedule, ThreatModel, WasserTrain, attacks, data, load_pretrained, models
    from wasser_tf.data.selection import ImageSource
    from wasser_tf.evaluation.config import EvaluationRun
    from wasser_tf.evaluation.record import evaluate_attack
    from wasser_tf.paper.context import Reproduction
    from wasser_tf.paper.presets import Preset
    from wasser_tf.runs.attack import AttackRun
    from wasser_tf.runs.leaderboard import Board
    from wasser_tf.runs.predict import PredictRun
    from wasser_tf.runs.publish import Publication
    from wasser_tf.serving.export import export_classifier
    from wasser_tf.serving.robustness import RobustnessProbe
    from wasser_tf.training.config import TrainConfig

    ball = ThreatModel(epsilon=0.1, kernel_size=3)
    plan = attacks.make("random_plan", ball)
    model = models.build("linear", (4, 4, 1), 3, seed=0)
    images, labels = np.full((2, 4, 4, 1), 0.5, np.float32), np.zeros(2, np.int32)
    split = data.Split(images, labels, labels)
    sizes: dict[str, Any] = {
        **{name: 1 for name in ("standard_epochs", "epochs", "omega_epochs", "batch_size", "iterations")},
        **{name: 0.1 for name in ("learning_rate", "epsilon", "epsilon_drawn", "linf_epsilon")},
        **{"omegas": (0.5,), "radii": (0.1,), "num_examples": 1, "pgd_iterations": 1, "attack_iterations": 1},
    }
    board = Board(source=ImageSource(), attacks={"plan": plan}, output_dir="x", results_dir="x")
    calls: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "ThreatModel": (
            ThreatModel,
            {"epsilon": 0.1, "p": 1.0, "kernel_size": 5, "normalize_mass": True, "capacity": 1.0},
        ),
        "RadiusSchedule": (RadiusSchedule, {"start": 0.1, "factor": 1.4, "every": 5, "minimum": 0.1, "maximum": 2.0}),
        "WasserTrain": (WasserTrain, {"classifier": model, "attack": plan, "omega": 0.5, "attack_chunk": 1}),
        "data.load": (
            data.load,
            {"name": "digits", "data_dir": "x", "splits": ("test",), "validation_size": 3, "image_size": (4, 4)},
        ),
        "data.batches": (data.batches, {"batch_size": 1, "seed": 0, "epoch": 0, "split": split, "shuffle": True}),
        "models.build": (
            models.build,
            {"name": "linear", "image_shape": (4, 4, 1), "num_classes": 3, "seed": 0, "width": 1.0},
        ),
        "models.load_classifier": (models.load_classifier, {"path": "x"}),
        "models.load_published": (models.load_published, {"path": "x"}),
        "attack": (
            plan,
            {
                "classifier": model,
                "images": images,
                "labels": labels,
                "radius": 0.1,
                "index": labels,
                "targets": labels,
                "batch_size": 2,
            },
        ),
        "ImageSource": (
            lambda **fields: ImageSource(**fields).load(),
            {"dataset": "digits", "split": "test", "num_examples": 2, "indices": None},
        ),
        "AttackRun": (
            AttackRun,
            {"model": "x", "source": ImageSource(), "attack": plan, "output_dir": "x", "batch_size": 2},
        ),
        "EvaluationRun": (
            EvaluationRun,
            {
                "models": {"a": "x"},
                "source": ImageSource(),
                "attacks": {"a": plan},
                "radii": (0.1,),
                "output_dir": "x",
                "batch_size": 2,
                "sanity_examples": 1,
            },
        ),
        "TrainConfig": (
            TrainConfig,
            {
                "output_dir": "x",
                "attack": plan,
                "omega": 0.5,
                "epochs": 1,
                "standard_epochs": 1,
                "batch_size": 1,
                "optimizer": "adam",
                "learning_rate": 0.1,
                "augment": "none",
                "warmup": 0.1,
                "momentum": 0.0,
                "weight_decay": 0.1,
                "ema_momentum": 0.9,
                "seed": 0,
                "precision": "float32",
                "radii": (0.1,),
                "report_iterations": 1,
                "attack_chunk": 1,
                "distribute": "none",
            },
        ),
        "load_pretrained": (load_pretrained, {"name": "x"}),
        "evaluate_attack": (
            lambda **given: evaluate_attack(model, plan, **given),
            {"images": images, "labels": labels, "radius": 0.1, "index": labels, "batch_size": 2},
        ),
        "export_classifier": (
            lambda **given: export_classifier(**{"classifier": model, "base_dir": folder / "served", **given}),
            {"classifier": "x", "name": "é", "version": 0, "image_shape": (1, 1, 1), "class_names": ("a",)},
        ),
        "RobustnessProbe": (
            RobustnessProbe,
            {"threat_model": ball, "largest": 1.0, "rounds": 2, "iterations": 2},
        ),
        "Preset": (Preset, sizes),
        "Reproduction": (
            Reproduction,
            {
                "experiments": ("table1",),
                "dataset": "digits",
                "output_dir": "x",
                "preset": Preset(**sizes),
                "given": {},
            },
        ),
        "Publication": (Publication, {"run": "x", "name": "x", "board": board, "file": "best.keras"}),
        "PredictRun": (
            PredictRun,
            {"server": "x:1", "model": "m", "protocol": "grpc", "images": ("a.png",), "batch_size": 1},
        ),
    }
    for name, kind in attacks.ATTACKS.items():
        settings = inspect.signature(kind.__init__).parameters
        good = {key: value.default for key, value in settings.items() if key not in ("self", "threat_model")}
        calls[name] = (kind, {"threat_model": ball, **good})
    for name, (call, good) in calls.items():
        for key in good:
            for junk in _JUNK:
                yield (
                    f"{name}({key}={junk!r:.40})",
                    lambda call=call, good=good, key=key, junk=junk: call(**{**good, key: junk}),
                    False,
                )


def _file_cases(folder: pathlib.Path, chance: random.Random) -> Iterator[tuple[str, Callable[[], Any], bool]]:
    """Yields reads of files that are truncated, partly overwritten, of another format, or malicious."""
    from wasser_tf import models
    from wasser_tf.data import selection
    from wasser_tf.evaluation import examples
    from wasser_tf.runs import predict
    from wasser_tf.runtime import storage
    from wasser_tf.training.checkpoint import Checkpoint

    def checkpoint(path: pathlib.Path) -> Any:
        model = models.build("linear", (8, 8, 1), 10, seed=0)
        model.compile("sgd", "mse")
        return Checkpoint(path, model, model, 0.5)

    def images(path: pathlib.Path) -> Any:
        return list(predict._read([str(path)]))

    bad = folder / "bad"
    bad.mkdir(exist_ok=True)
    readers: dict[str, tuple[Callable[[pathlib.Path], Any], str]] = {
        "load_classifier": (models.load_classifier, ".keras"),
        "load_published": (models.load_published, ".npz"),
        "read_examples": (examples.read_examples, ".npz"),
        "Checkpoint": (checkpoint, ".npz"),
        "read_positions": (lambda path: selection.read_positions(str(path)), ".npy"),
        "predict": (images, ".npy"),
        "read_json": (storage.read_json, ".json"),
    }
    whole = (folder / "good.keras").read_bytes()
    arrays = io.BytesIO()
    np.savez_compressed(arrays, index=np.arange(9), image=np.zeros((9, 8, 8, 1), np.float32))
    number = itertools.count()
    for reader, (read, suffix) in readers.items():
        good = {".keras": whole, ".npz": arrays.getvalue(), ".npy": _npy(np.arange(99)), ".json": b'{"a": [1, 2]}'}[
            suffix
        ]
        harmful = {**_HARMFUL, **({"a pickle": _pickled(suffix)} if suffix in (".npy", ".npz") else {})}
        if suffix in (".npz", ".keras"):
            harmful |= {
                "a path out of the folder": _zip({"../../escaped.txt": b"x", "config.json": b"{}"}),
                "a bomb": _bomb(),
            }
        if suffix == ".keras":
            harmful |= {f"absurd {key}": _absurd(whole, key) for key in ("units", "batch_shape")}
        for place in range(12):
            cut = good[: chance.randrange(len(good))]
            harmful[f"cut short {place}"] = cut
            corrupt = bytearray(good)
            for _ in range(1 + place):
                corrupt[chance.randrange(len(corrupt))] = chance.randrange(256)
            harmful[f"corrupt {place}"] = bytes(corrupt)
        for what, content in harmful.items():
            path = bad / f"{next(number)}{suffix}"
            path.write_bytes(content)
            # Some corrupt bytes only change a value, and remain valid.
            yield f"{reader}: {what}", lambda read=read, path=path: read(path), not what.startswith(("corrupt", "cut"))


_HARMFUL = {
    "nothing in it": b"",
    "text": b"hello\nthere\n" * 50,
    "zeros": bytes(2000),
    # 400 TB of floats.
    "an absurd shape": b"\x93NUMPY\x01\x00v\x00"
    + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000, 100), }".ljust(117)
    + b"\n",
    "nested lists": b"[" * 100000,
}


def _npy(array: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def _zip(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _pickled(suffix: str) -> bytes:
    array = _npy(np.array([{"a": 1}, print], object), allow_pickle=True)
    return array if suffix == ".npy" else _zip({"index.npy": array, "conv1_kernel.npy": array, "state.npy": array})


def _bomb() -> bytes:
    """Returns an archive whose arrays claim to be of a terabyte."""
    return _zip({f"{name}.npy": _HARMFUL["an absurd shape"] for name in ("index", "conv1_kernel", "state", "image")})


def _absurd(whole: bytes, key: str) -> bytes:
    """Returns a classifier with a last layer, or images, that are too large for any machine."""

    def change(value: Any) -> Any:
        if isinstance(value, list):
            return [change(item) for item in value]
        if not isinstance(value, dict):
            return value
        grown = {"units": 10**9, "batch_shape": [None, 30000, 30000, 3000]}
        # Without build_config, whose shapes the new ones would contradict.
        kept = {name: change(item) for name, item in value.items() if name != "build_config"}
        return {**kept, **({key: grown[key]} if key in value else {})}

    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return _zip({**members, "config.json": json.dumps(change(json.loads(members["config.json"]))).encode()})
