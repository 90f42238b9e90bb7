"""Every flag of wasser-tf train and average, and the shared ones, reaches what it sets."""

import dataclasses
import importlib
import pathlib
import signal
import sys
import types

import pytest
from absl import flags

import wasser_tf.commands
from wasser_tf import MirrorAscent, RadiusSchedule, ThreatModel
from wasser_tf.attacks import RandomPlan, WasserAttack
from wasser_tf.commands import _run
from wasser_tf.data.selection import ImageSource
from wasser_tf.models import averaging
from wasser_tf.reporting import comparison
from wasser_tf.runs import train as train_run
from wasser_tf.runtime import interruption, provenance
from wasser_tf.training.config import TrainConfig


class _Binary:
    """A module of wasser_tf/commands/ with its flags alone, whatever other tests of the process defined."""

    def __init__(self, module):
        self.module = module
        self.shared = sys.modules["wasser_tf.commands._flags"]
        self.initial = {name: flags.FLAGS[name].value for name in flags.FLAGS}
        self.own = {flag.name for flag in flags.FLAGS.get_key_flags_for_module(module)}

    def parse(self, *arguments):
        flags.FLAGS.unparse_flags()
        for name, value in self.initial.items():
            flags.FLAGS[name].value = value
            flags.FLAGS[name].present = 0
        flags.FLAGS(["binary.py", *arguments])


@pytest.fixture(scope="module")
def load():
    """Imports a command; its flags, and those of the one before, are gone afterwards."""
    names = set(flags.FLAGS)

    def forget():
        for name in set(flags.FLAGS) - names:
            delattr(flags.FLAGS, name)
        for module in ("_flags", "train", "average"):
            sys.modules.pop(f"wasser_tf.commands.{module}", None)
            vars(wasser_tf.commands).pop(module, None)

    def load(name, define=lambda module: None):
        forget()
        module = importlib.import_module(f"wasser_tf.commands.{name}")
        define(module)
        return _Binary(module)

    yield load
    forget()


@pytest.fixture(scope="module")
def train(load):
    return load("train")


@pytest.fixture
def config_of(train, monkeypatch):
    """Runs main of bin/train.py on flags, and returns the config that run_training was given."""
    given = []
    monkeypatch.setattr(train_run, "prepare_process", lambda config: ("prepared", config))
    monkeypatch.setattr(train_run, "run_training", lambda config, distribution: given.append((config, distribution)))

    def config_of(*arguments):
        train.parse("--output_dir=runs/x", *arguments)
        train.module.main()
        (config, distribution) = given.pop()
        assert distribution == ("prepared", config)
        return config

    return config_of


def _attack(name="mirror_ascent", *, ball=None, **settings):
    made = {"mirror_ascent": MirrorAscent, "wasser_attack": WasserAttack}[name]
    return {"attack": made(ThreatModel(**{"epsilon": 0.1, **(ball or {})}), **{"iterations": 10, **settings})}


_ADAPTIVE = "--adaptive_radius"
# Flags, the flag that is meant first, and the fields that are then other than without them.
_TRAIN = [
    ("--output_dir=runs/y", {"output_dir": "runs/y"}),
    ("--dataset=mnist", {"dataset": "mnist"}),
    ("--data_dir=/data", {"data_dir": "/data"}),
    ("--download", {"download": True}),
    ("--image_size=12,10", {"image_size": (12, 10)}),
    ("--crop=center --image_size=3,3", {"crop": "center", "image_size": (3, 3)}),
    ("--channels=1", {"channels": 1}),
    ("--class_names=a,b", {"class_names": ("a", "b")}),
    ("--bad_files=skip", {"bad_files": "skip"}),
    ("--streaming=always", {"streaming": "always"}),
    ("--validation_size=17", {"validation_size": 17}),
    ("--model=mlp", {"model": "mlp"}),
    ("--width=0.5", {"width": 0.5}),
    ("--blur=2", {"blur": 2}),
    ("--initial=a.keras", {"initial": "a.keras"}),
    ("--omega=0.25", {"omega": 0.25}),
    ("--omega_schedule=cosine:0:0.7:500steps", {"omega_schedule": "cosine:0:0.7:500steps"}),
    ("--epsilon_schedule=linear:0:0.3:10epochs", {"epsilon_schedule": "linear:0:0.3:10epochs"}),
    ("--certified", {"certified": True}),
    ("--certified_epochs=7", {"certified_epochs": 7}),
    ("--certified_epsilon=0.25", {"certified_epsilon": 0.25}),
    ("--certified_schedule=linear:0:0.3:10epochs", {"certified_schedule": "linear:0:0.3:10epochs"}),
    ("--certified_random_radius", {"certified_random_radius": True}),
    ("--certified_exponent=0.7", {"certified_exponent": 0.7}),
    ("--kappa=0.5", {"kappa": 0.5}),
    ("--kappa_schedule=linear:1:0:5steps", {"kappa_schedule": "linear:1:0:5steps"}),
    ("--box_fraction=0.5", {"box_fraction": 0.5}),
    ("--potentials=32", {"potentials": 32}),
    ("--hidden_units=48", {"hidden_units": 48}),
    ("--trades_beta=3", {"trades_beta": 3.0}),
    ("--matching=3", {"matching": 3.0}),
    ("--decay=linear", {"decay": "linear"}),
    ("--label_smoothing=0.125", {"label_smoothing": 0.125}),
    ("--standard_epochs=0", {"standard_epochs": 0}),
    ("--epochs=7", {"epochs": 7}),
    ("--batch_size=32", {"batch_size": 32}),
    ("--augment=shift", {"augment": "shift"}),
    ("--optimizer=adamw", {"optimizer": "adamw"}),
    ("--learning_rate=0.5", {"learning_rate": 0.5}),
    ("--warmup=0.25", {"warmup": 0.25}),
    ("--momentum=0.75 --optimizer=sgd", {"momentum": 0.75, "optimizer": "sgd"}),
    ("--weight_decay=0.01", {"weight_decay": 0.01}),
    ("--ema_momentum=0.9", {"ema_momentum": 0.9}),
    ("--precision=mixed_bfloat16", {"precision": "mixed_bfloat16"}),
    ("--jit_compile=true", {"jit_compile": True}),
    ("--jit_compile=false", {"jit_compile": False}),
    ("--radii=0.3,0.5", {"radii": (0.3, 0.5)}),
    ("--report_iterations=3", {"report_iterations": 3}),
    ("--num_attack_examples=9", {"num_attack_examples": 9}),
    ("--distribute=mirrored", {"distribute": "mirrored"}),
    ("--attack_chunk=5", {"attack_chunk": 5}),
    ("--keep=last", {"keep": "last"}),
    ("--random_radius", {"random_radius": True}),
    ("--warm_start=0.75", {"warm_start": 0.75}),
    ("--nodeterministic", {"deterministic": False}),
    ("--resume", {"resume": True}),
    ("--overwrite", {"overwrite": True}),
    ("--seed=2147483647", {"seed": 2**31 - 1, **_attack(seed=2**31 - 1)}),
    (
        "--validation_attack=random_plan --seed=3 --epsilon=0.2",
        {"validation_attack": RandomPlan(ThreatModel(epsilon=0.2), seed=3)}
        | {"seed": 3, **_attack(ball={"epsilon": 0.2}, seed=3)},
    ),
    (
        "--validation_attack=mirror_ascent:iterations=4:restarts=2:loss=margin",
        {"validation_attack": MirrorAscent(ThreatModel(epsilon=0.1), iterations=4, restarts=2, loss="margin")},
    ),
    ("--attack=wasser_attack", _attack("wasser_attack")),
    ("--attack=wasser_attack:gamma=2:stop_when_fooled=True", _attack("wasser_attack", gamma=2, stop_when_fooled=True)),
    ("--epsilon=0.2", _attack(ball={"epsilon": 0.2})),
    ("--p=2", _attack(ball={"p": 2.0})),
    ("--kernel_size=3", _attack(ball={"kernel_size": 3})),
    ("--kernel_size=0", _attack(ball={"kernel_size": None})),
    ("--nonormalize_mass", _attack(ball={"normalize_mass": False})),
    ("--capacity=1.5", _attack(ball={"capacity": 1.5})),
    ("--capacity=0", _attack(ball={"capacity": None})),
    ("--iterations=4", _attack(iterations=4)),
    ("--attack_step=0.5", _attack(step_size=0.5)),
    ("--attack_loss=cross_entropy", _attack(loss="cross_entropy")),
    ("--restarts=3", _attack(restarts=3)),
    ("--alpha=2 --attack=wasser_attack", _attack("wasser_attack", alpha=2.0)),
    ("--beta=2 --attack=wasser_attack", _attack("wasser_attack", beta=2.0)),
    ("--gamma=2 --attack=wasser_attack", _attack("wasser_attack", gamma=2.0)),
    ("--stop_when_fooled", _attack(stop_when_fooled=True)),
    (_ADAPTIVE, _attack(schedule=RadiusSchedule())),
    (f"--epsilon_start=0.3 {_ADAPTIVE}", _attack(schedule=RadiusSchedule(start=0.3))),
    (f"--epsilon_factor=2 {_ADAPTIVE}", _attack(schedule=RadiusSchedule(factor=2.0))),
    (f"--epsilon_every=7 {_ADAPTIVE}", _attack(schedule=RadiusSchedule(every=7))),
    (f"--epsilon_min=0.05 {_ADAPTIVE}", _attack(schedule=RadiusSchedule(minimum=0.05))),
    (f"--epsilon_max=0.7 {_ADAPTIVE}", _attack(schedule=RadiusSchedule(maximum=0.7))),
]


def _values(config):
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    for name in ("attack", "validation_attack"):
        if values[name] is not None:
            values[name] = (values[name].name, values[name].get_config())
    return values


@pytest.mark.parametrize(("given", "changed"), _TRAIN, ids=[given for given, _ in _TRAIN])
def test_a_flag_of_train_sets_its_fields_and_no_others(config_of, given, changed):
    expected = TrainConfig(**{"output_dir": "runs/x", **_attack(), **changed})
    assert _values(config_of(*given.split())) == _values(expected)


def test_the_flags_of_train_default_to_the_fields_and_are_all_covered(train, config_of):
    assert _values(config_of()) == _values(TrainConfig(output_dir="runs/x", **_attack()))
    meant = {given.split()[0].removeprefix("--").partition("=")[0] for given, _ in _TRAIN}
    # --import is no field of the config; the next test gives it.
    assert {name if name in train.own else name.removeprefix("no") for name in meant} == train.own - {"import"}
    assert {field.name for field in dataclasses.fields(TrainConfig)} == {name for _, to in _TRAIN for name in to}


def test_train_imports_modules_first(config_of):
    with pytest.raises(ValueError, match="--import=no_such_module cannot be imported"):
        config_of("--import=no_such_module")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--attack=boost", "Unknown attack 'boost'; there are wasser_attack"),
        ("--attack=mirror_ascent:spin=2", "Attack 'mirror_ascent' has no setting spin; it has iterations"),
        ("--attack=mirror_ascent:iterations", "given as name or name:setting=value:setting=value, got"),
        ("--attack=mirror_ascent:=3", "given as name or name:setting=value:setting=value, got"),
        ("--alpha=2 --beta=1", "--alpha, --beta is no setting of mirror_ascent; leave it out"),
        ("--attack=distributional --adaptive_radius", "--adaptive_radius is no setting of distributional"),
        ("--validation_attack=random_plan:spin=2", "Attack 'random_plan' has no setting spin"),
        ("--radii=0.1,much", "radii must be ascending numbers above 0"),
    ],
)
def test_train_refuses_flags(config_of, given, message):
    with pytest.raises(ValueError, match=message):
        config_of(*given.split())


@pytest.mark.parametrize("given", ["--seed=-1", "--seed=2147483648", "--batch_size=0", "--keep=first", "--augment=x"])
def test_absl_refuses_flags(train, given):
    with pytest.raises(flags.IllegalFlagValueError):
        train.parse("--output_dir=x", given)


def test_train_needs_an_output_dir(train):
    with pytest.raises(flags.IllegalFlagValueError, match="output_dir"):
        train.parse()


def test_train_prints_the_table_and_the_pictures(train, monkeypatch, capsys):
    finished = train_run.Finished(None, "compared", [pathlib.Path("a.png"), pathlib.Path("b.png")])
    monkeypatch.setattr(train_run, "prepare_process", lambda config: None)
    monkeypatch.setattr(train_run, "run_training", lambda config, distribution: finished)
    monkeypatch.setattr(comparison, "comparison_table", lambda compared: f"table of {compared}")
    train.parse("--output_dir=x")
    train.module.main()
    assert capsys.readouterr().out == "\ntable of compared\nPictures:\n  a.png\n  b.png\n"


@pytest.mark.parametrize(("of", "function"), [("weights", "average"), ("logits", "average_logits")])
def test_average_hands_its_flags_on(load, monkeypatch, capsys, of, function):
    binary = load("average")
    calls = []
    for name in ("average", "average_logits"):
        monkeypatch.setattr(
            binary.module,
            name,
            lambda *given, name=name: calls.append((name, *given)) or types.SimpleNamespace(name="net"),
        )
    binary.parse("--models=a.keras,b.npz", "--output=c.keras", *([] if of == "weights" else [f"--of={of}"]))
    binary.module.main()
    assert calls == [(function, ["a.keras", "b.npz"], "c.keras")] and binary.own >= {"models", "output", "of"}
    assert capsys.readouterr().out == f"Written: c.keras: net, the mean of the {of} of 2\n"
    assert averaging.average is not binary.module.average
    for missing in ("--models=a,b", "--output=c.keras"):
        with pytest.raises(flags.IllegalFlagValueError, match="must have a value"):
            binary.parse(missing)


@pytest.fixture(scope="module")
def board(load):
    return load("_flags", lambda module: (module.define_board(), module.define_deterministic()))


_SOURCE = [
    ("--dataset=mnist", {"dataset": "mnist"}),
    ("--data_dir=/data", {"data_dir": "/data"}),
    ("--download", {"download": True}),
    ("--split=validation", {"split": "validation"}),
    ("--num_examples=7", {"num_examples": 7}),
    ("--indices=i.npy", {"indices": "i.npy"}),
    ("--original_index=o.npy", {"original_index": "o.npy"}),
]


@pytest.mark.parametrize(("given", "changed"), _SOURCE)
def test_a_flag_of_the_images_sets_its_field(board, given, changed):
    board.parse(given)
    assert board.shared.board().source == ImageSource(**changed)


def test_a_flag_of_the_board_sets_its_field(board):
    board.parse()
    usual = board.shared.board()
    assert list(usual.attacks) == ["ensemble"] and usual.source == ImageSource() and usual.batch_size == 128
    assert (usual.output_dir, usual.results_dir) == ("runs/leaderboard", "docs/results")
    # Those of the dataset's board.
    assert usual.radii == type(usual)(source=ImageSource(), attacks={}, output_dir="", results_dir="").radii
    # A setting goes to those attacks that have it.
    board.parse(
        *["--attacks=mirror_ascent:iterations=3,random_plan", "--radii=0.3,0.1", "--output_dir=a", "--results_dir=b"],
        *["--batch_size=4", "--restarts=2", "--seed=6", "--p=2"],
    )
    made = board.shared.board()
    assert (made.radii, made.output_dir, made.results_dir, made.batch_size) == ((0.1, 0.3), "a", "b", 4)
    ball = ThreatModel(epsilon=0.0, p=2.0)
    expected = {
        "mirror_ascent:iterations=3": MirrorAscent(ball, iterations=3, restarts=2, seed=6),
        "random_plan": RandomPlan(ball, seed=6),
    }
    assert {name: attack.get_config() for name, attack in made.attacks.items()} == {
        name: attack.get_config() for name, attack in expected.items()
    }


@pytest.mark.parametrize("given", ["--num_examples=0", "--split=all", "--batch_size=0"])
def test_absl_refuses_flags_of_the_board(board, given):
    with pytest.raises(flags.IllegalFlagValueError):
        board.parse(given)


def test_lists_of_numbers_must_ascend(board):
    board.parse("--radii=3,1e-1,2")
    assert board.shared.numbers("radii") == (0.1, 2.0, 3.0)
    board.parse("--radii=0.1,much")
    with pytest.raises(ValueError, match="--radii must be numbers such as 0.1,0.3,0.5, got 0.1,much"):
        board.shared.numbers("radii")
    board.parse("--radii=")
    with pytest.raises(ValueError, match="--radii must be numbers such as 0.1,0.3,0.5, got none"):
        board.shared.numbers("radii")


@pytest.mark.parametrize(("given", "asked"), [([], [7, "determinism"]), (["--nodeterministic"], [7])])
def test_determinism_follows_the_flag(board, monkeypatch, given, asked):
    calls = []
    monkeypatch.setattr(board.shared.keras.utils, "set_random_seed", calls.append)
    experimental = board.shared.tensorflow.config.experimental
    monkeypatch.setattr(experimental, "enable_op_determinism", lambda: calls.append("determinism"))
    board.parse("--seed=7", *given)
    board.shared.apply_deterministic()
    assert calls == asked


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (ValueError("omega is wrong."), "run.py: omega is wrong.", ""),
        (OSError("disk is full."), "run.py: disk is full.", ""),
        (interruption.Interrupted(signal.SIGTERM), 143, "run.py: stopped by SIGTERM, what was done is saved: again.\n"),
        (KeyboardInterrupt(), 130, "run.py: stopped at once: again.\n"),
        (None, None, ""),
    ],
)
def test_binaries_report_errors_in_one_sentence_with_an_exit_code(board, monkeypatch, capsys, raised, code, told):
    handlers = []
    monkeypatch.setattr(provenance, "commit", lambda: handlers.append("commit"))
    # What absl does around a main, without what it sets for the whole process.
    monkeypatch.setattr(_run.app, "run", lambda guarded, flags_parser: guarded(["bin/run.py"]))
    monkeypatch.setattr(_run.logging, "set_verbosity", lambda level: None)
    monkeypatch.setattr(sys, "argv", ["bin/run.py"])
    board.parse()
    before = signal.getsignal(signal.SIGTERM)

    def main():
        handlers.append(signal.getsignal(signal.SIGTERM))
        if raised is not None:
            raise raised

    if raised is None:
        _run.run(main, "again")
    else:
        with pytest.raises(SystemExit) as ended:
            _run.run(main, "again")
        assert ended.value.code == code
    assert capsys.readouterr().err == told
    # The commit is read first, and signals are watched while main runs, no longer.
    assert handlers[0] == "commit" and handlers[1] is not before and signal.getsignal(signal.SIGTERM) is before


def test_binaries_refuse_positional_arguments_and_keep_the_given_verbosity(board, monkeypatch):
    levels = []
    monkeypatch.setattr(_run.app, "run", lambda guarded, flags_parser: guarded(["bin/run.py", *rest]))
    monkeypatch.setattr(_run.logging, "set_verbosity", levels.append)
    rest = ["digits"]
    monkeypatch.setattr(sys, "argv", ["bin/run.py", *rest])
    with pytest.raises(SystemExit, match="run.py: flags begin with --, got digits"):
        _run.run(lambda: pytest.fail("It was run."))
    rest = []
    board.parse()
    _run.run(lambda: None)
    board.parse("--verbosity=1")
    levels_before = len(levels)
    _run.run(lambda: None)
    assert levels_before == len(levels) == 1 and levels[0] == _run.logging.ERROR
    board.parse("--verbosity=0")
