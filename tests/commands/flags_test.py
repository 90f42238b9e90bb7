"""Every flag of every binary reaches its setting; all flags are given values other than their defaults."""

import dataclasses
import pathlib

import numpy as np
import pytest

from wasser_tf import RadiusSchedule, ThreatModel, attacks, data
from wasser_tf.attacks import serialize
from wasser_tf.data import Dataset, ReadingOptions
from wasser_tf.data.selection import ImageSource
from wasser_tf.evaluation.config import EvaluationRun
from wasser_tf.models import ModelOptions
from wasser_tf.paper.context import Reproduction
from wasser_tf.paper.presets import FULL, QUICK
from wasser_tf.publishing.leaderboard import RADII
from wasser_tf.runs.attack import AttackRun
from wasser_tf.runs.leaderboard import Board
from wasser_tf.runs.predict import PredictRun, ServedPredictions
from wasser_tf.runs.publish import Publication
from wasser_tf.serving.certified import CertifiedProbe
from wasser_tf.serving.export import Exported
from wasser_tf.serving.robustness import RobustnessProbe

_BALL = ThreatModel(p=2.0, kernel_size=3, normalize_mass=False, capacity=2.0)
_BALL_FLAGS = ["--p=2", "--kernel_size=3", "--nonormalize_mass", "--capacity=2"]
_READING_FLAGS = ["--image_size=12,10", "--crop=random", "--channels=3", "--class_names=a,b"]
_READING_FLAGS += ["--bad_files=skip", "--streaming=never"]
_READING = ReadingOptions(
    image_size=(12, 10), crop="random", channels=3, class_names=("a", "b"), bad_files="skip", streaming="never"
)
_DATA_FLAGS = ["--dataset=mnist", "--data_dir=sets", "--download", *_READING_FLAGS]
_SELECTION_FLAGS = ["--split=validation", "--num_examples=7", "--indices=places.npy"]
_SOURCE = ImageSource(
    dataset="mnist",
    data_dir="sets",
    download=True,
    split="validation",
    num_examples=7,
    indices="places.npy",
    reading=_READING,
)
# What is given about a classifier.
_MODEL_FLAGS = [
    *("--signature=s", "--output=1", "--input_range=0,255", "--data_format=channels_first", "--returns=sigmoid"),
    "--import=json",
]
_OPTIONS = ModelOptions(
    signature="s", output=1, input_range=(0.0, 255.0), data_format="channels_first", returns="sigmoid"
)
_SETTING_FLAGS = [
    *("--iterations=9", "--attack_step=0.25", "--attack_loss=cross_entropy", "--restarts=3", "--alpha=1.5"),
    *("--beta=2.5", "--gamma=3.5", "--stop_when_fooled", "--seed=11"),
]
_SCHEDULE_FLAGS = [
    *("--adaptive_radius", "--epsilon_start=0.3", "--epsilon_factor=1.5", "--epsilon_every=4"),
    *("--epsilon_min=0.2", "--epsilon_max=0.9"),
]
_SCHEDULE = RadiusSchedule(start=0.3, factor=1.5, every=4, minimum=0.2, maximum=0.9)


def _wasser_attack(ball=_BALL, **changes):
    """What the flags of settings make of WasserAttack, the attack that has most of them."""
    settings = {"iterations": 9, "step_size": 0.25, "alpha": 1.5, "beta": 2.5, "gamma": 3.5}
    settings = {**settings, "stop_when_fooled": True, "seed": 11, **changes}
    return attacks.make("wasser_attack", ball, **settings)


def _mirror_ascent(ball=_BALL, **changes):
    settings = {"iterations": 9, "step_size": 0.25, "loss": "cross_entropy", "restarts": 3, "stop_when_fooled": True}
    return attacks.make("mirror_ascent", ball, **{**settings, "seed": 11, **changes})


def _same(ours, theirs):
    """Whether two configs, or dicts of attacks, are the same; attacks are by what they serialise to."""

    def plain(value):
        if isinstance(value, attacks.Attack):
            return serialize(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return list(value) if isinstance(value, tuple) else value

    assert plain(ours) == plain(theirs)


def test_attack(load, parse, spy, process, monkeypatch, capsys):
    binary = load("attack")
    settings = [flag for flag in _SETTING_FLAGS if not flag.startswith(("--restarts", "--attack_loss"))]
    given = parse(
        "--model=m.keras", "--attack=wasser_attack", "--epsilon=0.7",
        *_MODEL_FLAGS, "--allow_chance_accuracy", "--stored_examples=int8", *_DATA_FLAGS, *_SELECTION_FLAGS,
        *_BALL_FLAGS, *settings,
        *_SCHEDULE_FLAGS, "--nodeterministic", "--output_dir=out", "--overwrite", "--batch_size=5",
    )  # fmt: skip
    assert binary.new_flags == given | {"restarts", "attack_loss", "original_index"}
    run = spy(binary, "run_attack", "record")
    summary = spy(binary.tables, "summary", "the scores")
    binary.main()
    (config,), options = run.only
    wanted = AttackRun(
        model="m.keras",
        source=_SOURCE,
        attack=_wasser_attack(_BALL.with_epsilon(0.7), schedule=_SCHEDULE),
        output_dir="out",
        overwrite=True,
        batch_size=5,
        options=_OPTIONS,
        allow_chance_accuracy=True,
        stored_examples="int8",
    )
    _same(config, wanted)
    assert not options and config.verbose and process == [11]
    assert summary.only == (("record",), {}) and capsys.readouterr().out == "\nthe scores\nWritten: out\n"


def test_the_usual_flags_of_attacks(load, parse, spy, process):
    binary = load("attack")
    parse("--model=m", "--output_dir=out", "--original_index=order.npy", "--kernel_size=0", "--capacity=0")
    run = spy(binary, "run_attack")
    spy(binary.tables, "summary")
    binary.main()
    (config,), _ = run.only
    ball = ThreatModel(epsilon=0.5, kernel_size=None, capacity=None)
    wanted = AttackRun(
        model="m",
        source=ImageSource(original_index="order.npy"),
        attack=attacks.make("wasser_attack", ball, seed=0),
        output_dir="out",
    )
    _same(config, wanted)
    assert process == [0, "deterministic"]


_EVALUATE = [
    "--models=a.keras,b=c.npz", "--attacks=mirror_ascent,wasser_attack:iterations=4", "--radii=0.5,0.1", "--resume",
    "--rescore", "--verify_exact", "--verify_examples=3", "--nosanity", "--skip_fooled", "--minimal_radius",
    "--main_attack=wasser_attack:iterations=4", "--sanity_examples=6", *_DATA_FLAGS, *_SELECTION_FLAGS, *_BALL_FLAGS,
    *_SETTING_FLAGS, "--nodeterministic", "--output_dir=out", "--overwrite", "--batch_size=5", *_MODEL_FLAGS,
    "--allow_chance_accuracy", "--certification=proofs", "--stored_examples=none",
]  # fmt: skip


class _Report:
    name = "a"


def test_evaluate(load, parse, spy, process, capsys):
    binary = load("evaluate")
    given = parse(*_EVALUATE)
    schedule = {flag.removeprefix("--").partition("=")[0] for flag in _SCHEDULE_FLAGS}
    # An evaluation is at fixed radii.
    assert binary.new_flags == given | schedule | {"original_index"}
    run = spy(binary, "run_evaluation", [_Report()])
    spy(binary, "overview", "a table")
    binary.main()
    (config,), options = run.only
    wanted = EvaluationRun(
        models={"a": "a.keras", "b": "c.npz"},
        source=_SOURCE,
        attacks={
            "mirror_ascent": _mirror_ascent(_BALL.with_epsilon(0.5)),
            "wasser_attack:iterations=4": _wasser_attack(_BALL.with_epsilon(0.5), iterations=4),
        },
        radii=(0.1, 0.5),
        output_dir="out",
        minimal_radius=True,
        sanity=False,
        main_attack="wasser_attack:iterations=4",
        sanity_examples=6,
        batch_size=5,
        skip_fooled=True,
        stored_examples="none",
        options=_OPTIONS,
    )
    _same(config, wanted)
    told = options.pop("log")
    assert options == {
        "resume": True, "overwrite": True, "rescore_only": True, "verify_exact": 3, "allow_chance_accuracy": True,
        "certification": "proofs",
    }  # fmt: skip
    told("a line")
    assert capsys.readouterr().out == "\na\na table\nWritten: out/report.md\na line\n" and process == [11]


def test_evaluate_by_default(load, parse, spy, process):
    binary = load("evaluate")
    parse("--models=a.keras", "--output_dir=out")
    run = spy(binary, "run_evaluation", [])
    binary.main()
    (config,), options = run.only
    names = ("mirror_ascent", "wasser_attack", "random_plan")
    wanted = EvaluationRun(
        models={"a": "a.keras"},
        source=ImageSource(),
        attacks={name: attacks.make(name, ThreatModel(epsilon=1.0), seed=0) for name in names},
        radii=(0.1, 0.3, 0.5, 1.0),
        output_dir="out",
    )
    _same(config, wanted)
    assert config.sanity and config.main_attack == "mirror_ascent"
    options.pop("log")
    assert not any(options[name] for name in ("resume", "overwrite", "rescore_only", "allow_chance_accuracy"))
    assert options["verify_exact"] is None


def test_evaluate_loads_the_stored_run_where_no_models_are_given(load, parse, spy, process):
    binary = load("evaluate")
    parse("--output_dir=out", "--rescore", "--verify_exact", "--verify_examples=0")
    run, stored = spy(binary, "run_evaluation", []), spy(binary.EvaluationRun, "load", "what is stored")
    binary.main()
    assert stored.only == (("out",), {})
    arguments, options = run.only
    assert arguments == ("what is stored",) and options["rescore_only"] and options["verify_exact"] == 0


_EXPORT = [
    "--model=runs/best.keras", "--base_dir=served", "--name=digits", "--version=3", "--class_names=a,b",
    "--dataset=mnist", "--data_dir=sets", "--image_shape=8,8,1", "--robustness", "--robustness_largest=0.5",
    "--robustness_rounds=4", "--robustness_iterations=7", "--certify",
    "--certify_method=crown", "--certify_largest=0.75", "--certify_rounds=6",
]  # fmt: skip


@pytest.fixture
def export(load, spy):
    binary = load("export")
    binary.done = spy(
        binary, "export_classifier", Exported(pathlib.Path("served/digits/3"), 3, ("x", "y"), (pathlib.Path("f"),))
    )
    binary.loaded = spy(binary.models, "load_classifier", "a classifier")
    return binary


def test_export(export, parse, spy, capsys):
    of_run = spy(export.model_card, "of_run", {"dataset": "digits"})
    described = spy(export.models, "Classifier", "a described classifier")
    assert export.new_flags == parse(*_EXPORT, *_BALL_FLAGS, *_MODEL_FLAGS)
    export.main()
    arguments, options = export.done.only
    assert of_run.only == ((pathlib.Path("runs/best.keras"),), {})
    assert export.loaded.only == (("runs/best.keras",), {"signature": "s", "output": 1})
    # A file that is not of Keras has its output chosen when it is loaded.
    taken = {"input_range": (0.0, 255.0), "data_format": "channels_first", "returns": "sigmoid"}
    assert described.only == (("a classifier",), taken)
    assert arguments == ("a described classifier", "served", "digits")
    assert options == {
        "version": 3,
        "image_shape": (8, 8, 1),
        "class_names": ("a", "b"),
        "robustness": RobustnessProbe(threat_model=_BALL.with_epsilon(0.0), largest=0.5, rounds=4, iterations=7),
        "certified": CertifiedProbe(threat_model=_BALL.with_epsilon(0.0), method="crown", largest=0.75, rounds=6),
        "card": {"dataset": "digits", "source": "runs/best.keras"},
    }
    assert capsys.readouterr().out == "served/digits/3: x, y\nf\n"


def test_export_reads_settings_without_a_flag_from_the_run(export, parse, spy):
    trained = ThreatModel(epsilon=0.3, p=2.0)
    card = {"dataset": "digits", "data_dir": "of the run", "threat_model": trained.get_config()}
    spy(export.model_card, "of_run", card)
    loaded = spy(export.data, "load", Dataset("digits", None, None, None, 2, ("zero", "one")))
    parse("--model=m", "--base_dir=b", "--name=n", "--robustness")
    export.main()
    _, options = export.done.only
    assert loaded.only == (("digits",), {"data_dir": "of the run", "splits": ("test",)})
    assert options["class_names"] == ("zero", "one") and options["version"] is options["image_shape"] is None
    assert options["robustness"] == RobustnessProbe(threat_model=trained)
    # A flag of the ball, or of the dataset, takes precedence.
    parse("--model=m", "--base_dir=b", "--name=n", "--robustness", "--p=1", "--dataset=mnist", "--data_dir=mine")
    export.main()
    assert export.done.calls[1][1]["robustness"].threat_model == ThreatModel(epsilon=0.0)
    assert loaded.calls[1] == (("mnist",), {"data_dir": "mine", "splits": ("test",)})


def test_export_without_names_or_a_probe(export, parse, spy, monkeypatch):
    spy(export.model_card, "of_run", {})
    parse("--model=m", "--base_dir=b", "--name=n")
    export.main()
    arguments, options = export.done.only
    assert (
        arguments[0] == "a classifier"
        and options["class_names"] is None
        and options["robustness"] is None
        and options["card"] == {"source": "m"}
    )
    parse("--model=m", "--base_dir=b", "--name=n", "--image_shape=8,x")
    with pytest.raises(ValueError, match="--image_shape must be like 28,28,1, got 8,x"):
        export.main()

    def missing(*_, **__):
        raise ValueError("It is not there.")

    monkeypatch.setattr(data, "load", missing)
    parse("--model=m", "--base_dir=b", "--name=n", "--dataset=mnist", "--image_shape=8,8,1")
    with pytest.raises(ValueError, match="or the names in --class_names. It is not there."):
        export.main()


_BOARD_FLAGS = [
    *_DATA_FLAGS, *_SELECTION_FLAGS, *_BALL_FLAGS, *_SETTING_FLAGS,
    "--attacks=mirror_ascent,wasser_attack:seed=2", "--radii=0.4,0.2", "--output_dir=out", "--results_dir=docs",
    "--batch_size=5", *_MODEL_FLAGS, "--allow_chance_accuracy", "--certification=proofs", "--stored_examples=int16",
]  # fmt: skip


def _check_board(board):
    ball = _BALL.with_epsilon(0.0)
    wanted = Board(
        source=_SOURCE,
        attacks={"mirror_ascent": _mirror_ascent(ball), "wasser_attack:seed=2": _wasser_attack(ball, seed=2)},
        output_dir="out",
        results_dir="docs",
        radii=(0.2, 0.4),
        batch_size=5,
        options=_OPTIONS,
        allow_chance_accuracy=True,
        certification="proofs",
        stored_examples="int16",
    )
    _same(board, wanted)


def test_leaderboard(load, parse, spy, capsys):
    binary = load("leaderboard")
    given = parse("--models=a.keras,b=c.npz", "--description=Mine.", *_BOARD_FLAGS)
    schedule = {flag.removeprefix("--").partition("=")[0] for flag in _SCHEDULE_FLAGS}
    assert binary.new_flags == given | schedule | {"original_index"}
    add, page = spy(binary, "add_to_leaderboard", "entry"), spy(binary.leaderboard, "write_leaderboard", "the page")
    table = spy(binary.leaderboard, "leaderboard_table", "a table")
    binary.main()
    assert [arguments[1:] for arguments, _ in add.calls] == [("a", "a.keras", "Mine."), ("b", "c.npz", "Mine.")]
    _check_board(add.calls[0][0][0])
    assert table.calls == [((["entry"],), {})] * 2 and page.only == ((pathlib.Path("docs"),), {})
    add.calls[0][1]["log"]("a line")
    assert capsys.readouterr().out == "\na table\n" * 2 + "Written: the page\na line\n"


def test_leaderboard_without_models_renders_the_page(load, parse, spy):
    binary = load("leaderboard")
    parse()
    add, page = spy(binary, "add_to_leaderboard"), spy(binary.leaderboard, "write_leaderboard")
    binary.main()
    assert not add.calls and page.only == ((pathlib.Path("docs/results"),), {})


def test_publish(load, parse, spy, capsys, tmp_path):
    binary = load("publish")
    given = parse(
        "--run=runs/a", "--name=mine", "--file=standard.keras", "--overwrite", "--description=Us.", *_BOARD_FLAGS
    )
    schedule = {flag.removeprefix("--").partition("=")[0] for flag in _SCHEDULE_FLAGS}
    assert binary.new_flags == given | schedule | {"original_index"}
    (tmp_path / "mine.md").write_text("# The card")
    done = spy(binary.publish, "publish", tmp_path / "mine.keras")
    binary.main()
    (config, metadata), options = done.only
    assert (config.run, config.name, config.file, config.overwrite, metadata) == (
        "runs/a", "mine", "standard.keras", True, "Us.",
    )  # fmt: skip
    assert {field.name for field in dataclasses.fields(Publication)} == {"run", "name", "board", "file", "overwrite"}
    _check_board(config.board)
    options["log"]("a line")
    path = tmp_path / "mine.keras"
    assert capsys.readouterr().out == f"\n# The card\nWritten: {path} and its card\na line\n"


def test_publish_by_default(load, parse, spy, tmp_path):
    binary = load("publish")
    parse("--name=mine")
    (tmp_path / "mine.md").touch()
    done = spy(binary.publish, "publish", tmp_path / "mine.keras")
    binary.main()
    (config, metadata), _ = done.only
    assert (config.run, config.file, config.overwrite, metadata) == (None, "best.keras", False, "")
    ensemble = attacks.make("ensemble", ThreatModel(epsilon=0.0), seed=0)
    wanted = Board(
        source=ImageSource(),
        attacks={"ensemble": ensemble},
        output_dir="runs/leaderboard",
        results_dir="docs/results",
        radii=RADII["digits"],
        batch_size=128,
    )
    _same(config.board, wanted)


def test_predict(load, parse, spy, capsys, tmp_path):
    binary = load("predict")
    options = [
        "--server=h:1", "--model=m", "--protocol=rest_columns", "--version=2", "--signature=uint8", "--dataset=mnist",
        "--data_dir=sets", "--split=train", "--num_examples=4", "--batch_size=3", "--timeout=1.5", "--retries=6",
        *_READING_FLAGS,
        f"--output={tmp_path / 'labels.csv'}",
    ]  # fmt: skip
    assert binary.new_flags == parse(*options) | {"images"}
    answered = ServedPredictions(["0"], {"class_id": np.array([3])}, np.array([4]), np.array([0.5]))
    run = spy(binary.predict, "run_predict", answered)
    binary.main()
    (config,), _ = run.only
    assert config == PredictRun(
        server="h:1",
        model="m",
        protocol="rest_columns",
        version=2,
        signature="uint8",
        images=[],
        source=ImageSource(dataset="mnist", data_dir="sets", split="train", num_examples=4, reading=_READING),
        batch_size=3,
        timeout=1.5,
        retries=6,
    )
    assert (tmp_path / "labels.csv").read_text() == "image,class_id,truth\n0,3,4\n"
    assert capsys.readouterr().out.startswith("accuracy 0.00%\n1 images in 1 requests")


def test_predict_prints_the_first_labels(load, parse, spy, capsys):
    binary = load("predict")
    parse("--model=m", "--images=a.png,b.npy")
    count = 22
    answered = ServedPredictions(
        [str(at) for at in range(count)], {"class_id": np.arange(count)}, None, np.array([0.5])
    )
    run = spy(binary.predict, "run_predict", answered)
    binary.main()
    assert run.only[0] == (PredictRun(server="localhost:8500", model="m", images=["a.png", "b.npy"]),)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["image\tclass_id", "0\t0"] and lines[20] == "19\t19" and len(lines) == 23
    assert lines[21] == "… and 2 more; write all of them with --output=labels.csv"
    run.returned = ServedPredictions(["a"] * 20, {"class_id": np.arange(20)}, None, np.array([0.5]))
    binary.main()
    assert "more" not in capsys.readouterr().out


def test_reproduce(load, parse, spy, capsys):
    binary = load("reproduce")
    options = [
        "--experiment=fig4,table1", "--dataset=mnist", "--data_dir=sets", "--download", "--original_index=order.npy",
        "--quick", "--standard=s.npz", "--pgd=p.npz", "--wasser_train=w.keras", "--others=o.keras,x=y.npz",
        "--leave_out=pgd", "--recipe=paper", "--attacks=random_plan", "--model=mlp", "--standard_epochs=2",
        "--epochs=3", "--omega_epochs=4", "--omegas=0.7,0.2", "--epsilon=0.6", "--iterations=5", "--radii=0.3,0.2",
        "--num_examples=6", "--attack_iterations=7", "--seed=8", "--batch_size=9", "--output_dir=out",
        "--publish_dir=docs", "--signature=s", "--output=digit", "--input_range=0,255", "--returns=logits",
        "--data_format=channels_first", "--import=math", "--allow_chance_accuracy",
    ]  # fmt: skip
    assert binary.new_flags == parse(*options)
    run = spy(binary, "reproduce", ["one", "two"])
    binary.main()
    (config,), told = run.only
    preset = dataclasses.replace(
        QUICK["mnist"],
        **{"model": "mlp", "standard_epochs": 2, "epochs": 3, "omega_epochs": 4, "omegas": (0.2, 0.7)},
        **{"epsilon": 0.6, "iterations": 5, "radii": (0.2, 0.3), "num_examples": 6, "attack_iterations": 7},
    )
    options = config.options
    assert options.to_json()["options"] == {
        "signature": "s", "output": "digit", "input_range": [0, 255], "returns": "logits",
        "data_format": "channels_first",
    }  # fmt: skip
    assert config == Reproduction(
        options=options,
        allow_chance_accuracy=True,
        experiments=["fig4", "table1"],
        dataset="mnist",
        data_dir="sets",
        download=True,
        original_index="order.npy",
        output_dir="out",
        preset=preset,
        given={"standard": "s.npz", "pgd": "p.npz", "wasser_train": "w.keras"},
        others={"o": "o.keras", "x": "y.npz"},
        leave_out=("pgd",),
        recipe="paper",
        attacks=("random_plan",),
        seed=8,
        batch_size=9,
        publish_dir="docs",
    )
    told["log"]("a line")
    assert capsys.readouterr().out == "Written:\n  one\n  two\na line\n"


def test_reproduce_by_default(load, parse, spy):
    binary = load("reproduce")
    parse("--output_dir=out")
    run = spy(binary, "reproduce", [])
    binary.main()
    experiments = ["table1", "fig1", "fig3", "fig4", "fig5", "beyond", "certified"]
    wanted = Reproduction(experiments=experiments, dataset="digits", output_dir="out", preset=FULL["digits"])
    (made,) = run.only[0]
    assert dataclasses.replace(made, options=wanted.options) == wanted and made.options.to_json() == {}
    assert wanted.attacks == ("mirror_ascent", "frank_wolfe", "constrained_sinkhorn", "ensemble")


@pytest.mark.parametrize(
    "description, settings",
    [
        ("mirror_ascent", {}),
        (" mirror_ascent : iterations = 4 ", {"iterations": 4}),
        ("mirror_ascent:loss=dlr:stop_when_fooled=True", {"loss": "dlr", "stop_when_fooled": True}),
        ("mirror_ascent:stop_when_fooled=false:step_size=2.5", {"stop_when_fooled": False, "step_size": 2.5}),
    ],
)
def test_attacks_by_description(load, parse, description, settings):
    binary = load("attack")
    parse("--model=m", "--output_dir=o")
    made = binary._flags.make_attack(description, ThreatModel())
    assert serialize(made) == serialize(attacks.make("mirror_ascent", ThreatModel(), **settings))


@pytest.mark.parametrize(
    "flags, description, message",
    [
        ([], "nothing", "Unknown attack 'nothing'; there are .*mirror_ascent"),
        ([], "mirror_ascent:alpha=1", "Attack 'mirror_ascent' has no setting alpha; it has .*iterations"),
        ([], "mirror_ascent:iterations", "An attack is given as name or name:setting=value:setting=value, got "),
        ([], "mirror_ascent:=3", "An attack is given as name or name:setting=value:setting=value, got "),
        (["--alpha=2", "--restarts=2"], "random_plan", "^--restarts, --alpha is no setting of random_plan; leave it"),
        (["--adaptive_radius"], "distributional", "--adaptive_radius is no setting of distributional"),
    ],
)
def test_attacks_that_are_refused(load, parse, flags, description, message):
    binary = load("attack")
    parse("--model=m", "--output_dir=o", *flags)
    with pytest.raises(ValueError, match=message):
        binary._flags.make_attack(description, ThreatModel())


@pytest.mark.parametrize(
    "radii, message", [("", "such as 0.1,0.3,0.5, got none"), ("0.1,a", "--radii must be numbers .*, got 0.1,a")]
)
def test_radii_that_are_refused(load, parse, radii, message):
    binary = load("evaluate")
    parse("--models=m", "--output_dir=o", f"--radii={radii}")
    with pytest.raises(ValueError, match=message):
        binary.main()


def test_only_wasserstein_attacks_are_offered(load):
    binary = load("attack")
    assert "linf_pgd" not in binary._flags.WASSERSTEIN_ATTACKS and "mirror_ascent" in binary._flags.WASSERSTEIN_ATTACKS
