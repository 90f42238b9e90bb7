import dataclasses
import json

import pytest

from wasser_tf import MirrorAscent, RadiusSchedule, ThreatModel
from wasser_tf.training.config import TrainConfig

_ATTACK = MirrorAscent(ThreatModel(epsilon=0.1), iterations=3, schedule=RadiusSchedule())

_FIXED = MirrorAscent(ThreatModel(epsilon=0.1), iterations=3)


def _config(**fields):
    return TrainConfig(**{"output_dir": "runs/x", "attack": _ATTACK, **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"output_dir": ""}, "output_dir must be the path of a folder"),
        ({"attack": "mirror_ascent"}, "attack must be a wasser_tf.attacks.Attack"),
        ({"model": "vgg"}, "model must be one of lenet, .*, got 'vgg'"),
        ({"width": 0.0}, "width must be a finite number above 0, got 0.0"),
        ({"blur": -1}, "blur must be a whole number from 0 to 100, got -1"),
        ({"blur": 101}, "blur must be a whole number from 0 to 100, got 101"),
        ({"random_radius": True}, "random_radius and an adaptive radius exclude each other"),
        ({"omega": 1.5}, "omega must be a finite number from 0 to 1, got 1.5"),
        ({"omega_schedule": "linear:0:1.5:3epochs"}, "omega_schedule must be a number from 0 to 1 at every step"),
        ({"omega_schedule": "linear:0:1"}, "A schedule is given as linear:START:END:LENGTH"),
        ({"epsilon_schedule": "staircase:0.1:-1:3steps"}, "epsilon_schedule must be a finite number of at least 0"),
        ({"epochs": 0}, "epochs must be at least 1 unless certified is set, got 0"),
        ({"epochs": -1}, "epochs must be a whole number of at least 0, got -1"),
        ({"standard_epochs": -1}, "standard_epochs must be a whole number of at least 0"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"num_attack_examples": 0}, "num_attack_examples must be"),
        ({"report_iterations": 0}, "report_iterations must be"),
        ({"seed": -1}, "seed must be a whole number from 0 to 2147483647, got -1"),
        ({"seed": 2**31}, "seed must be a whole number from 0 to 2147483647, got 2147483648"),
        ({"optimizer": "adamant"}, "optimizer must be the name of a Keras optimizer, such as adam"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number above 0"),
        ({"learning_rate": float("inf")}, "learning_rate must be a finite number above 0"),
        ({"warmup": 1.0}, "warmup must be a finite number from 0 to below 1, got 1.0"),
        ({"ema_momentum": 1}, "ema_momentum must be a finite number from 0 to below 1, got 1"),
        ({"optimizer": "sgd", "momentum": -0.1}, "momentum must be a finite number from 0 to below 1, got -0.1"),
        ({"momentum": 0.9}, "momentum is a setting of sgd, got it with optimizer=adam"),
        ({"label_smoothing": 1.0}, "label_smoothing must be a finite number from 0 to below 1, got 1.0"),
        ({"validation_size": 0}, "validation_size must be a whole number of at least 1, or None, got 0"),
        ({"weight_decay": -1.0}, "weight_decay must be a finite number of at least 0"),
        ({"trades_beta": -1.0}, "trades_beta must be a finite number of at least 0, got -1.0"),
        ({"augment": "mixup"}, "augment must be one of none, shift, flip, crop_flip, crop_flip_cutout, got 'mixup'"),
        ({"augment": None}, "augment must be one of none, shift, flip, crop_flip, crop_flip_cutout, got None"),
        ({"augment": "crop_flip"}, "augment=crop_flip flips images, which changes the characters of digits"),
        ({"augment": "crop_flip", "dataset": "emnist/letters:3.0.0"}, "characters of emnist/letters:3.0.0"),
        ({"precision": "float16"}, "precision must be one of float32, mixed_float16"),
        ({"jit_compile": "yes"}, "jit_compile must be one of auto, True, False, got 'yes'"),
        ({"radii": ()}, "radii must be ascending numbers above 0"),
        ({"radii": (0.2, 0.1)}, "radii must be ascending numbers above 0"),
        ({"radii": ("0.1", "much")}, r"radii must be .*, got \('0.1', 'much'\)"),
        ({"radii": 0.1}, "radii must be ascending numbers above 0"),
        ({"radii": (0.0, 0.1)}, "radii must be ascending numbers above 0"),
        ({"distribute": "tpu"}, "distribute must be one of none, mirrored, multi_worker, got 'tpu'"),
        ({"distribute": "mirrored", "jit_compile": True}, "jit_compile must be auto or false with distribute"),
        ({"attack_chunk": 0}, "attack_chunk must be a whole number of at least 1"),
        ({"keep": "first"}, "keep must be one of best, last, got 'first'"),
        ({"validation_attack": "mirror_ascent"}, "validation_attack must be .* got 'mirror_ascent'"),
        ({"validation_attack": _ATTACK}, "validation_attack must be a wasser_tf.attacks.Attack of a fixed radius"),
        (
            {"validation_attack": MirrorAscent(ThreatModel(p=2))},
            "validation_attack must move mass by the rules of attack",
        ),
        ({"attack": _FIXED, "warm_start": 1.0}, "warm_start must be a finite number from 0 to below 1, got 1.0"),
        ({"warm_start": 0.5}, "warm_start needs mirror_ascent with restarts=1, gradient_noise=0 and a fixed radius"),
        ({"matching": -1.0}, "matching must be a finite number of at least 0, got -1.0"),
        ({"decay": "step"}, "decay must be one of cosine, linear, got 'step'"),
        ({"attack": _FIXED, "warm_start": 0.5, "distribute": "mirrored"}, "one replica, got distribute=mirrored"),
        ({"resume": True, "overwrite": True}, "exclude each other"),
    ],
)
def test_errors_name_the_wrong_field(fields, message):
    with pytest.raises(ValueError, match=message):
        _config(**fields)


def test_the_defaults():
    fields = {field.name: getattr(_config(), field.name) for field in dataclasses.fields(TrainConfig)}
    del fields["output_dir"], fields["attack"]
    assert fields == {
        "dataset": "digits",
        "data_dir": None,
        "download": False,
        "image_size": None,
        "crop": "none",
        "channels": None,
        "class_names": None,
        "bad_files": "refuse",
        "streaming": "auto",
        "validation_size": None,
        "model": "lenet",
        "width": 1.0,
        "blur": 0,
        "initial": None,
        "omega": 0.7,
        "omega_schedule": None,
        "epsilon_schedule": None,
        "trades_beta": 0.0,
        "matching": 0.0,
        "label_smoothing": 0.0,
        "standard_epochs": 30,
        "epochs": 40,
        "certified": False,
        "certified_epochs": 40,
        "certified_epsilon": None,
        "certified_schedule": None,
        "kappa": 0.2,
        "kappa_schedule": None,
        "certified_exponent": 0.0,
        "certified_random_radius": False,
        "box_fraction": 1.0,
        "potentials": 256,
        "hidden_units": 256,
        "batch_size": 64,
        "augment": "none",
        "optimizer": "adam",
        "learning_rate": 2e-3,
        "decay": "cosine",
        "warmup": 0.0,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "ema_momentum": 0.0,
        "seed": 0,
        "precision": "float32",
        "jit_compile": "auto",
        "radii": (0.02, 0.05, 0.1, 0.2, 0.3),
        "report_iterations": 100,
        "num_attack_examples": 400,
        "distribute": "none",
        "attack_chunk": None,
        "keep": "best",
        "validation_attack": None,
        "random_radius": False,
        "warm_start": 0.0,
        "deterministic": True,
        "resume": False,
        "overwrite": False,
    }


# Of each field a value that is not its default, at the edge of its range where it has one.
_OTHERS = {
    "output_dir": "runs/y",
    "attack": MirrorAscent(ThreatModel(epsilon=0.2)),
    "dataset": "mnist",
    "data_dir": "/data",
    "download": True,
    "image_size": (3, 4),
    "crop": "center",
    "channels": 3,
    "class_names": ("a", "b"),
    "bad_files": "skip",
    "streaming": "always",
    "validation_size": 1,
    "model": "mlp",
    "width": 1e-3,
    "blur": 100,
    "initial": "a.keras",
    "omega": 1,
    "omega_schedule": "linear:0:1:3epochs",
    "epsilon_schedule": "staircase:0.1:0.2:30steps",
    "trades_beta": 1e-3,
    "matching": 1e-3,
    "label_smoothing": 0.999,
    "standard_epochs": 0,
    "epochs": 1,
    "certified": True,
    "certified_epochs": 1,
    "certified_epsilon": 1e-9,
    "certified_schedule": "linear:0:1:3epochs",
    "kappa": 1,
    "kappa_schedule": "linear:1:0:3epochs",
    "certified_exponent": 1,
    "certified_random_radius": True,
    "box_fraction": 1e-3,
    "potentials": 1,
    "hidden_units": 1,
    "batch_size": 1,
    "augment": "shift",
    "optimizer": "SGD",
    "learning_rate": 1e-9,
    "decay": "linear",
    "warmup": 0.999,
    "momentum": 0.999,
    "weight_decay": 1e-9,
    "ema_momentum": 0.999,
    "seed": 2**31 - 1,
    "precision": "mixed_float16",
    "jit_compile": True,
    "radii": (1e-9,),
    "report_iterations": 1,
    "num_attack_examples": 1,
    "distribute": "mirrored",
    "attack_chunk": 1,
    "keep": "last",
    "validation_attack": MirrorAscent(ThreatModel(epsilon=0.1)),
    "random_radius": True,
    "warm_start": 0.999,
    "deterministic": False,
    "resume": True,
    "overwrite": True,
}
# What does not decide what a run ends with.
_PLACE = {
    "output_dir", "data_dir", "download", "streaming", "distribute", "attack_chunk", "deterministic", "resume",
    "overwrite",
}  # fmt: skip


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(TrainConfig)])
def test_the_identity_holds_exactly_the_fields_that_change_the_result(name):
    others = {"momentum": {"optimizer": "sgd"}, "crop": {"image_size": (8, 8)}}.get(name, {})
    config = _config(attack=_FIXED, **others)
    other = _config(**{"attack": _FIXED, **others, name: _OTHERS[name]})
    assert (other.identity() == config.identity()) == (name in _PLACE)
    assert (name in config.identity()) == (name not in _PLACE)


@pytest.mark.parametrize(
    "fields",
    [
        {"omega": 0},
        {"jit_compile": False, "distribute": "mirrored"},
        {"distribute": "multi_worker"},
        {"precision": "mixed_bfloat16"},
        {"augment": "crop_flip", "dataset": "cifar10"},
        {"attack": _FIXED, "warm_start": 0.5, "distribute": "none", "augment": "none"},
        {"attack": _FIXED, "warm_start": 0.5, "dataset": "cifar10", "augment": "crop_flip_cutout"},
        {"radii": (0.1, 0.1 + 1e-9)},
    ],
)
def test_accepts_values_in_range(fields):
    _config(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"omega": True},
        {"omega": -1e-9},
        {"width": True},
        {"width": float("inf")},
        {"learning_rate": "0.1"},
        {"weight_decay": float("inf")},
        {"trades_beta": None},
        {"warmup": -1e-9},
        {"ema_momentum": True},
        {"seed": 0.5},
        {"optimizer": None},
        {"optimizer": "optimizer"},
        {"optimizer": "LossScaleOptimizer"},
        {"radii": (0.1, 0.1)},
        {"radii": (0.1, float("inf"))},
        {"output_dir": None},
        {"distribute": "multi_worker", "jit_compile": True},
    ],
)
def test_refuses_values_out_of_range(fields):
    with pytest.raises(ValueError, match=f"{next(iter(fields)).replace('distribute', 'jit_compile')} must be"):
        _config(**fields)


def test_the_identity_does_not_contain_the_output_folder():
    config = _config(data_dir="here", resume=True, distribute="mirrored", attack_chunk=8)
    assert config.identity() == _config(output_dir="runs/y").identity()
    assert config.identity() != _config(omega=0.5).identity()
    # Plain values: what is read back from a file is equal.
    assert json.loads(json.dumps(config.identity())) == config.identity()
    assert config.identity()["attack"]["config"]["schedule"]["factor"] == 1.4


def test_the_middle_radius():
    assert _config(radii=(0.1, 0.3, 0.5)).middle_radius == 0.3
    assert _config(radii=("0.1", 1)).radii == (0.1, 1.0)
    assert _config(radii=(0.1, 0.3)).middle_radius == 0.3
    assert _config(radii=(0.1,)).middle_radius == 0.1
