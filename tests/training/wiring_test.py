"""Every field of TrainConfig reaches its setting and no other; runs are recorded, nothing is trained."""

import dataclasses
import hashlib
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from wasser_tf import MirrorAscent, ThreatModel, attacks, data, models
from wasser_tf.attacks import RandomPlan, WasserAttack
from wasser_tf.data import ReadingOptions, augmentation
from wasser_tf.reporting import comparison
from wasser_tf.runs import train as train_run
from wasser_tf.training import loop, run_folder
from wasser_tf.training.callbacks import EpochTable, RobustValidation
from wasser_tf.training.checkpoint import Checkpoint
from wasser_tf.training.config import TrainConfig
from wasser_tf.training.distribution import Distribution
from wasser_tf.training.moving_average import WeightAverage
from wasser_tf.training.nan_guard import StopWhenNotFinite
from wasser_tf.training.wasser_train import WasserTrain

_BALL = ThreatModel(epsilon=0.15)
_ATTACK = MirrorAscent(_BALL, iterations=3)
# What is made once.
_SHARED = {}


def _dataset():
    """The digits, but for 40, 12 and 14 of them."""
    if "dataset" not in _SHARED:
        digits = data.load("digits")
        sizes = {"train": 40, "validation": 12, "test": 14}
        parts = {key: data.Split(*(array[:size] for array in getattr(digits, key))) for key, size in sizes.items()}
        _SHARED["dataset"] = digits._replace(**parts)
    return _SHARED["dataset"]


def _config(folder, **fields):
    usual = {"attack": _ATTACK, "model": "linear", "batch_size": 8, "standard_epochs": 2, "epochs": 3}
    return TrainConfig(**{"output_dir": str(folder), **usual, **fields})


def _hash(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:12]


def _first_batch(config):
    """By hand: hashes of the images and the labels of the first batch of the second epoch."""
    train = _dataset().train
    rows = np.random.RandomState([config.seed, 1]).permutation(40)[: config.batch_size]
    images = train.images[rows]
    change = augmentation.make_augmentation(config.augment, (8, 8, 1))
    if change:
        images = change(tf.constant(images), data.step_seed(config.seed, 1, 0)).numpy()
    return _hash(images), _hash(train.labels[rows])


class _Recorded(Distribution):
    """Notes what is to be trained."""

    def __init__(self, seen, name="none"):
        super().__init__()
        self.seen = seen
        seen["process.distribute"] = name

    def fit(self, model, batches, *, epochs, initial_epoch=0, callbacks=(), make_share=None):
        assert make_share is None
        name = "wasser_train" if isinstance(model, WasserTrain) else "standard"
        schedule = model.optimizer._learning_rate
        self.seen |= {f"{name}.{key}": value for key, value in self._training(model, batches, callbacks).items()}
        self.seen |= {
            f"{name}.epochs": (initial_epoch, epochs),
            f"{name}.optimizer": type(model.optimizer).__name__,
            f"{name}.momentum": getattr(model.optimizer, "momentum", None),
            f"{name}.weight_decay": model.optimizer.weight_decay,
            f"{name}.rate": max(schedule.initial_learning_rate, schedule.warmup_target or 0),
            f"{name}.rising": schedule.warmup_steps,
            f"{name}.decay": type(schedule).__name__,
            f"{name}.steps": schedule.warmup_steps + schedule.decay_steps,
            f"{name}.smoothing": getattr(model.loss, "label_smoothing", 0.0),
            f"{name}.jit_compile": model.jit_compile,
        }
        # Biases, which are 0 at first, count the trainings.
        classifier = getattr(model, "classifier", model)
        *others, bias = classifier.get_weights()
        self.seen[f"{name}.start"] = round(float(bias.mean()))
        classifier.set_weights([*others, bias + 1])
        if name == "wasser_train":
            own = ("omega", "attack_chunk", "random_radius", "trades_beta", "matching", "warm_start")
            self.seen |= {key: getattr(model, key) for key in own}
            self.seen["attack"] = attacks.serialize(model.attack)
            self.seen["num_examples"] = model._warm_start and model._warm_start.num_examples

    def _training(self, model, batches, callbacks):
        by_type = {type(callback): callback for callback in callbacks}
        assert len(by_type) == len(callbacks)
        classifier = getattr(model, "classifier", model)
        average = by_type.get(WeightAverage)
        kept = by_type[RobustValidation].classifier
        if average is None:
            assert kept is classifier
        else:
            for (mean, weight), one, two in zip(average._pairs, kept.weights, classifier.weights, strict=True):
                assert mean is one and weight is two
                np.testing.assert_array_equal(one, two)
        validation, checkpoint = by_type[RobustValidation], by_type[Checkpoint]
        assert checkpoint._trained is model and checkpoint._classifier is kept
        follower = by_type[data.EpochFollower]
        follower.epoch = 1
        images, labels = next(iter(batches))
        numbered = isinstance(images, dict)
        # What adds to the logs goes before what shows and saves them, and the order of the data before all.
        order = [data.EpochFollower, WeightAverage, StopWhenNotFinite, RobustValidation, EpochTable, Checkpoint]
        assert list(by_type)[:-1] == [kind for kind in order if kind in by_type]
        return {
            "batch": (_hash(images["image"] if numbered else images), _hash(labels)),
            "batches": int(batches.cardinality()),
            "numbered": numbered,
            "average": average and average._momentum,
            "table": by_type[EpochTable]._epochs,
            "validation.split": [key for key in data.SPLITS if validation.split is getattr(_dataset(), key)],
            "validation.attack": validation.attack and attacks.serialize(validation.attack),
            "validation.radius": validation.radius,
            "validation.count": validation.num_attack_examples,
            "validation.logits": validation.from_logits,
            "checkpoint.path": checkpoint.path.relative_to(checkpoint.path.parents[1]).as_posix(),
            "checkpoint.omega": checkpoint._omega,
            "checkpoint.keep_last": checkpoint._keep_last,
            "checkpoint.within_epochs": checkpoint._within_epochs,
            "finite.path": by_type[StopWhenNotFinite].path.name,
            "finite.first_step": by_type[StopWhenNotFinite]._step,
        }


@pytest.fixture
def record(tmp_path, monkeypatch):
    def record(config):
        seen = {}
        calls = {"build": set(), "blur": set(), "initial": set(), "saved": []}
        build, blurred, load_classifier = models.build, models.blurred, models.load_classifier

        def noted_build(name, shape, classes, **options):
            calls["build"].add((name, tuple(shape), classes, *sorted(options.items())))
            return build(name, shape, classes, **options)

        def load(name, **options):
            seen["data"] = (name, *sorted(options.items()))
            return _dataset()

        def compare(classifiers, attack, split, radii, **options):
            seen["report.attack"] = attacks.serialize(attack)
            seen["report.images"] = _hash(split.images), _hash(split.labels), _hash(split.index)
            seen["report.radii"] = tuple(radii)
            trained = {name: round(float(one.get_weights()[-1].mean())) for name, one in classifiers.items()}
            seen["report.classifiers"] = trained
            seen["report.dataset"], seen["report.logits"] = options["dataset_name"], options["from_logits"]
            return "compared"

        def save_report(folder, compared, metadata, introduction):
            assert metadata.pop("config") == config.identity() and metadata.pop("seconds") >= 0
            seen["report.about"] = {key: metadata[key] for key in ("best_epoch", "threat_model", "deterministic")}
            seen["report.data_dir"] = metadata["data_dir"]
            seen["report.folder"] = folder

        def save_figures(folder, compared, radius, names):
            seen["figures"] = radius, names
            assert (folder, compared) == (pathlib.Path(config.output_dir), "compared")
            return ["figure.png"]

        with monkeypatch.context() as patch:
            patch.setattr(train_run, "Distribution", lambda name="none": _Recorded(seen, name))
            patch.setattr(keras.utils, "set_random_seed", lambda seed: calls.setdefault("seed", set()).add(seed))
            patch.setattr(
                tf.config.experimental, "enable_op_determinism", lambda: seen.update({"process.determinism": True})
            )
            patch.setattr(keras.config, "set_dtype_policy", lambda policy: seen.update({"process.precision": policy}))
            patch.setattr(data, "load", load)
            patch.setattr(models, "build", noted_build)
            patch.setattr(models, "blurred", lambda model, passes: calls["blur"].add(passes) or blurred(model, passes))
            patch.setattr(models, "load_classifier", lambda path: calls["initial"].add(path) or load_classifier(path))
            patch.setattr(train_run, "compare", compare)
            patch.setattr(comparison, "save_figures", save_figures)
            patch.setattr(comparison, "save_report", save_report)
            for function in ("save_classifier", "export_saved_model"):
                patch.setattr(train_run, function, lambda model, path: calls["saved"].append((path.name, model.name)))
            finished = train_run.run_training(config, train_run.prepare_process(config))
        assert (finished.compared, finished.figures) == ("compared", ["figure.png"])
        assert [name for name, _ in calls["saved"]] == ["standard.keras", "best.keras", "best_saved_model"]
        assert finished.classifier.name == calls.pop("saved")[-1][1]
        return {**seen, **calls}

    return record


@pytest.fixture
def usual(record, tmp_path):
    """What is recorded of the usual config, once."""
    if "usual" not in _SHARED:
        _SHARED["usual"] = record(_config(tmp_path / "usual"))
    return _SHARED["usual"]


def _both(**changes):
    return {f"{name}.{key}": value for key, value in changes.items() for name in ("standard", "wasser_train")}


def _built(model="linear", seed=0, width=1.0):
    return {"build": {(model, (8, 8, 1), 10, ("seed", seed), ("width", width))}}


def _loaded(name="digits", **changes):
    usual = {"data_dir": None, "download": False, "validation_size": None, **vars(ReadingOptions())}
    options = {**usual, **changes}
    return {"data": (name, *sorted(options.items()))}


def _report(ball=_BALL, **settings):
    attack = MirrorAscent(ball, **{"iterations": 100, "restarts": 6, "seed": 0, **settings})
    return {"report.attack": attacks.serialize(attack)}


def _validated(ball=_BALL, **settings):
    attack = MirrorAscent(ball, **{"iterations": 20, "seed": 0, **settings})
    return {"wasser_train.validation.attack": attacks.serialize(attack)}


def _batch(**fields):
    return _both(batch=_first_batch(_config("x", **fields)))


_OTHER = ThreatModel(epsilon=0.3, p=2)
_WASSER = WasserAttack(_OTHER, iterations=2)
_RANDOM = RandomPlan(_BALL, seed=9)
# Fields, and what is recorded of a run with them where it differs from the usual one.
_WIRES = [
    (
        {"attack": _WASSER},
        {"attack": attacks.serialize(_WASSER), **_report(_OTHER), **_validated(_OTHER)}
        | {"report.about": {"best_epoch": 0, "threat_model": _OTHER.get_config(), "deterministic": True}},
    ),
    ({"dataset": "cifar10"}, {**_loaded("cifar10"), "report.dataset": "cifar10 test"}),
    ({"data_dir": "/data"}, {**_loaded(data_dir="/data"), "report.data_dir": "/data"}),
    ({"download": True}, _loaded(download=True)),
    ({"validation_size": 12}, _loaded(validation_size=12)),
    ({"image_size": (8, 8)}, _loaded(image_size=(8, 8))),
    ({"crop": "center", "image_size": (8, 8)}, _loaded(crop="center", image_size=(8, 8))),
    ({"channels": 1}, _loaded(channels=1)),
    ({"class_names": ["a", "b"]}, _loaded(class_names=("a", "b"))),
    ({"bad_files": "skip"}, _loaded(bad_files="skip")),
    ({"streaming": "never"}, _loaded(streaming="never")),
    ({"model": "mlp"}, _built("mlp")),
    ({"width": 0.5}, _built(width=0.5)),
    ({"blur": 2}, {"blur": {2}}),
    ({"omega": 0.25}, {"omega": 0.25, "wasser_train.checkpoint.omega": 0.25}),
    ({"trades_beta": 2.0}, {"trades_beta": 2.0}),
    ({"matching": 2.0}, {"matching": 2.0}),
    ({"label_smoothing": 0.1}, _both(smoothing=0.1)),
    (
        {"standard_epochs": 5},
        {"standard.epochs": (0, 5), "standard.steps": 25, "standard.table": 5},
    ),
    ({"epochs": 5}, {"wasser_train.epochs": (0, 5), "wasser_train.steps": 25, "wasser_train.table": 5}),
    (
        {"batch_size": 16},
        {"standard.steps": 4, "wasser_train.steps": 6, **_both(batches=2), **_batch(batch_size=16)},
    ),
    ({"augment": "shift"}, _batch(augment="shift")),
    ({"optimizer": "adamw"}, _both(optimizer="AdamW", weight_decay=keras.optimizers.AdamW().weight_decay)),
    ({"learning_rate": 0.25}, _both(rate=0.25)),
    ({"decay": "linear"}, _both(decay="LinearDecay")),
    ({"warmup": 0.2}, {"standard.rising": 2, "wasser_train.rising": 3}),
    ({"optimizer": "sgd", "momentum": 0.75}, _both(optimizer="SGD", momentum=0.75)),
    ({"weight_decay": 0.01}, _both(weight_decay=0.01)),
    (
        {"ema_momentum": 0.9},
        # What is kept is the average, which nothing moved.
        _both(average=0.9) | {"report.classifiers": {"standard": 0, "wasser_train": 0}, "wasser_train.start": 0},
    ),
    ({"seed": 4}, {**_built(seed=4), **_batch(seed=4), **_report(seed=4), **_validated(seed=4), "seed": {4}}),
    ({"precision": "mixed_bfloat16"}, {"process.precision": "mixed_bfloat16"}),
    ({"jit_compile": True}, _both(jit_compile=True)),
    (
        {"radii": (0.1, 0.4, 0.5)},
        {"report.radii": (0.1, 0.4, 0.5), "figures": (0.4, tuple("0123456789"))}
        | {"standard.validation.radius": 0.4, "wasser_train.validation.radius": 0.4},
    ),
    ({"report_iterations": 7}, _report(iterations=7)),
    (
        {"num_attack_examples": 6},
        {"standard.validation.count": 6, "wasser_train.validation.count": 6} | {"report.images": None},  # Below.
    ),
    ({"distribute": "mirrored"}, {"process.distribute": "mirrored"}),
    ({"attack_chunk": 4}, {"attack_chunk": 4}),
    ({"keep": "last"}, {"standard.checkpoint.keep_last": True, "wasser_train.checkpoint.keep_last": True}),
    ({"validation_attack": _RANDOM}, {"wasser_train.validation.attack": attacks.serialize(_RANDOM)}),
    ({"random_radius": True}, {"random_radius": True}),
    ({"warm_start": 0.75}, {"warm_start": 0.75, "num_examples": 40, "wasser_train.numbered": True}),
    (
        {"deterministic": False},
        {"process.determinism": None}
        | {"report.about": {"best_epoch": 0, "threat_model": _BALL.get_config(), "deterministic": False}},
    ),
]


def _test_images(count):
    return tuple(_hash(array[:count]) for array in _dataset().test)


@pytest.mark.parametrize(("fields", "changed"), _WIRES, ids=[next(iter(fields)) for fields, _ in _WIRES])
def test_a_field_sets_its_setting_and_nothing_else(record, usual, tmp_path, fields, changed):
    seen = record(_config(tmp_path / "run", **fields))
    if "num_attack_examples" in fields:
        changed = {**changed, "report.images": _test_images(6)}
    differing = {key: seen.get(key) for key in {*usual, *seen} if seen.get(key) != usual.get(key)}
    differing.pop("report.folder")
    assert differing == changed


def test_the_usual_run(usual, tmp_path):
    assert usual == {
        "process.distribute": "none",
        "process.determinism": True,
        "process.precision": "float32",
        "seed": {0},
        "build": {("linear", (8, 8, 1), 10, ("seed", 0), ("width", 1.0))},
        "blur": {0},
        "initial": set(),
        **_loaded(),
        "attack": attacks.serialize(_ATTACK),
        "omega": 0.7,
        "attack_chunk": None,
        "random_radius": False,
        "trades_beta": 0.0,
        "matching": 0.0,
        "warm_start": 0.0,
        "num_examples": None,
        **_both(
            batch=_first_batch(_config("x")),
            batches=5,
            numbered=False,
            average=None,
            optimizer="Adam",
            momentum=None,
            weight_decay=None,
            rate=2e-3,
            rising=0,
            decay="CosineDecay",
            smoothing=0.0,
            jit_compile=usual["standard.jit_compile"],
        ),
        **_both(**{"validation.split": ["validation"], "validation.radius": 0.1, "validation.count": 400}),
        **_both(**{"validation.logits": True, "checkpoint.keep_last": False, "checkpoint.within_epochs": True}),
        **_both(**{"finite.path": "not_finite.npz", "finite.first_step": 0}),
        "standard.steps": 10,
        "wasser_train.steps": 15,
        "standard.epochs": (0, 2),
        "wasser_train.epochs": (0, 3),
        "standard.table": 2,
        "wasser_train.table": 3,
        "standard.validation.attack": None,
        **_validated(),
        "standard.checkpoint.path": "checkpoints/standard.npz",
        "wasser_train.checkpoint.path": "checkpoints/wasser_train.npz",
        "standard.checkpoint.omega": 0.0,
        "wasser_train.checkpoint.omega": 0.7,
        **_report(),
        "report.images": _test_images(14),
        "report.radii": (0.02, 0.05, 0.1, 0.2, 0.3),
        "report.classifiers": {"standard": 1, "wasser_train": 2},
        "standard.start": 0,
        "wasser_train.start": 1,
        "report.dataset": "digits test",
        "report.logits": True,
        "report.about": {"best_epoch": 0, "threat_model": _BALL.get_config(), "deterministic": True},
        "report.data_dir": None,
        "report.folder": usual["report.folder"],
        "figures": (0.1, tuple("0123456789")),
    }


def test_it_starts_from_its_initial_classifier(record, tmp_path):
    initial = models.build("mlp", (8, 8, 1), 10, seed=5)
    initial.trainable = False
    initial.save(tmp_path / "mine.keras")
    path = str(tmp_path / "mine.keras")
    seen = record(_config(tmp_path / "run", initial=path, blur=1))
    assert (seen["initial"], seen["build"], seen["blur"]) == ({path}, set(), {1})
    loaded = loop.classifier_of(_config("x", initial=path), _dataset())
    assert loaded.trainable and len(loaded.trainable_weights) == 4
    for one, two in zip(loaded.get_weights(), initial.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_mixed_precision_also_applies_to_an_initial_classifier(tmp_path):
    models.build("mlp", (8, 8, 1), 10, seed=5).save(tmp_path / "mine.keras")
    config = _config("x", initial=str(tmp_path / "mine.keras"), precision="mixed_bfloat16")
    loaded = loop.classifier_of(config, _dataset())
    assert loaded.trainable and len(loaded.trainable_weights) == 4
    assert {layer.compute_dtype for layer in loaded.layers if layer.weights} == {"bfloat16", "float32"}


@pytest.mark.parametrize("flag", ["resume", "overwrite"])
def test_a_run_in_a_folder_that_holds_one(record, tmp_path, flag):
    folder = tmp_path / "run"
    record(_config(folder))
    files = [folder / run_folder.BEST, folder / "success.png", folder / "examples_old.png"]
    for file in files:
        file.write_text("old")
    half = folder / ".best.0123abcd.partial.keras"
    for path in (half, folder / "mine.txt"):
        path.write_text("")
    seen = record(_config(folder, **{flag: True}))
    assert seen["report.folder"] == folder and not half.exists() and (folder / "mine.txt").exists()
    assert [file.exists() for file in files] == 3 * [flag == "resume"]


def test_output_dir_and_every_other_field_are_covered(record, usual, tmp_path):
    assert usual["report.folder"].name == "usual" and (usual["report.folder"] / run_folder.CONFIG).exists()
    # Schedules are covered in loop_test.py, certified training in tests/runs/certified_run_test.py.
    elsewhere = {"output_dir", "resume", "overwrite", "initial", "epsilon_schedule", "omega_schedule"}
    elsewhere |= {"certified", "certified_epochs", "certified_epsilon", "certified_schedule", "certified_random_radius"}
    elsewhere.add("certified_exponent")
    elsewhere |= {"kappa", "kappa_schedule", "box_fraction", "potentials", "hidden_units"}
    assert {field.name for field in dataclasses.fields(TrainConfig)} == elsewhere | {
        name for fields, _ in _WIRES for name in fields
    }
