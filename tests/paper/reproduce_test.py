"""Reproductions: settings that the context passes on, invalid settings, order of the work. Nothing is trained."""

import json

import numpy as np
import pytest

from tests.fixtures.paper import reproduction
from wasser_tf import ThreatModel, attacks
from wasser_tf.data.selection import ImageSource, Selection
from wasser_tf.paper import context as context_module
from wasser_tf.paper import reproduce
from wasser_tf.paper.classifiers import ClassifierTrainer
from wasser_tf.paper.context import ExperimentContext
from wasser_tf.paper.experiment_output import ExperimentOutput
from wasser_tf.paper.presets import FULL, QUICK


def test_the_context_passes_on_its_settings(tmp_path, monkeypatch):
    config = reproduction(tmp_path)
    context = ExperimentContext(config, print)
    assert context.trainer == ClassifierTrainer(
        folder=tmp_path / "out" / "training", dataset="digits", data_dir="sets", download=True, preset=config.preset,
        recipe="paper", seed=4, given=config.given,
    )  # fmt: skip
    assert context.folder == tmp_path / "out" / "outputs"
    source = ImageSource(dataset="digits", data_dir="sets", download=True, num_examples=3, original_index="order")
    assert context.source(3) == source
    asked = []
    monkeypatch.setattr(ClassifierTrainer, "path", lambda self, name, log: asked.append((name, log)) or f"{name}.keras")
    monkeypatch.setattr(ClassifierTrainer, "omega_run", lambda self, omega, log: asked.append((omega, log)) or "folder")
    assert (context.path("mine"), context.path("pgd"), context.omega_run(0.3)) == ("m.keras", "pgd.keras", "folder")
    assert asked == [("pgd", print), (0.3, print)]
    loaded = []
    monkeypatch.setattr(ImageSource, "load", lambda self: loaded.append(self) or "images")
    assert context.images == context.images == "images" and loaded == [context.source(None)]


def test_attacks_of_the_context(tmp_path):
    context = ExperimentContext(reproduction(tmp_path), print)
    made = context.attack("mirror_ascent")
    assert made is context.attack("mirror_ascent")
    wanted = attacks.make("mirror_ascent", ThreatModel(epsilon=0.0), seed=4, iterations=40)
    assert attacks.serialize(made) == attacks.serialize(wanted)
    # Settings of the dataset take precedence.
    assert context.attack("wasser_attack").iterations == 200
    context = ExperimentContext(reproduction(tmp_path, preset=FULL["cifar10"]), print)
    assert context.attack("projected_sinkhorn").regularization == 3000
    usual = attacks.make("mirror_ascent", ThreatModel()).iterations
    assert context.attack("mirror_ascent").iterations == usual


def test_evaluations_of_the_context(tmp_path, monkeypatch):
    runs = []
    monkeypatch.setattr(
        context_module, "run_evaluation", lambda run, **options: runs.append((run, options)) or ["report"]
    )
    context = ExperimentContext(reproduction(tmp_path), print)
    assert context.evaluation("mine", ["mirror_ascent", "random_plan"]) == "report"
    ((run, options),) = runs
    assert options == {"resume": True, "allow_chance_accuracy": True, "log": print}
    assert run.options is context.config.options
    assert run.models == {"mine": "m.keras"} and run.source == context.source(48) and run.radii == QUICK["digits"].radii
    assert run.attacks == {name: context.attack(name) for name in ("mirror_ascent", "random_plan")}
    assert run.output_dir == str(tmp_path / "out" / "evaluations" / "mine")
    assert (run.sanity, run.batch_size, run.skip_fooled, run.minimal_radius) == (False, 16, False, False)
    ExperimentContext(reproduction(tmp_path, batch_size=100), print).evaluation("mine", ["random_plan"])
    assert runs[1][0].batch_size == 48


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"experiments": "fig4"}, "experiments must be a list that names at least one, got 'fig4'"),
        ({"experiments": []}, "experiments must be a list"),
        ({"preset": "quick"}, "preset must be a wasser_tf.paper.presets.Preset, got 'quick'"),
        ({"given": ["a"]}, "given must be a dict of paths"),
        ({"others": "a"}, "others must be a dict of paths"),
        ({"output_dir": ""}, "output_dir must be the path of a folder, got ''"),
        ({"output_dir": None}, "output_dir must be the path of a folder, got None"),
        ({"leave_out": "pgd"}, "leave_out must be some of"),
    ],
)
def test_reproductions_that_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        reproduction(tmp_path, **changes)


def test_roles_follow_leave_out(tmp_path):
    assert reproduction(tmp_path).roles == ("standard", "pgd", "wasser_train")
    assert reproduction(tmp_path, leave_out=("pgd",)).roles == ("standard", "wasser_train")
    both = reproduction(tmp_path, leave_out=["pgd", "wasser_train"])
    assert both.roles == ("standard",)


@pytest.fixture
def checked(tmp_path, monkeypatch):
    """Replaces the experiments by stubs; returns the record of the checks before them."""
    checked = []
    images = Selection("d", np.arange(3), np.zeros([3, 8, 8, 1], np.float32), np.zeros(3, int), None)
    monkeypatch.setattr(ImageSource, "load", lambda self: checked.append(self.num_examples) or images)
    monkeypatch.setattr(ClassifierTrainer, "prepare_process", lambda self: checked.append("prepared"))
    monkeypatch.setattr(
        reproduce, "load_checked", lambda path, options, given, allowed: checked.append((path, options, allowed)) or len
    )
    monkeypatch.setattr(
        reproduce,
        "check_batch",
        lambda classifier, given, labels: checked.append((classifier, len(given), len(labels))),
    )
    monkeypatch.setattr(ExperimentContext, "attack", lambda self, name: checked.append(name))

    def experiment(name):
        def make(context):
            (context.folder / f"{name}.png").parent.mkdir(parents=True, exist_ok=True)
            (context.folder / f"{name}.png").write_text(name)
            fields = {"title": "T", "rows": [{"a": 1}], "table": "| t |\n", "num_images": 3, "threat_model": "B"}
            return ExperimentOutput(name=name, settings={}, pictures=[f"{name}.png"], **fields)

        return make

    monkeypatch.setattr(reproduce, "EXPERIMENTS", {name: experiment(name) for name in ("table1", "fig4")})
    return checked


def test_a_reproduction_runs_its_experiments_in_order(tmp_path, checked):
    logged = []
    config = reproduction(
        tmp_path, experiments=["fig4", "table1"], attacks=("x", "y"), publish_dir=str(tmp_path / "docs")
    )
    written = reproduce.reproduce(config, logged.append)
    folder, docs = tmp_path / "out" / "outputs", tmp_path / "docs"
    assert written == [folder / "fig4.md", folder / "table1.md", docs / "digits.md"] and logged == ["fig4", "table1"]
    # All inputs are checked before anything is trained.
    loaded = [(path, config.options, True) for path in ("s.keras", "m.keras")]
    assert checked == ["prepared", 48, loaded[0], (len, 1, 1), loaded[1], (len, 1, 1), "x", "y"]
    files = {f"{name}.{kind}" for name in ("fig4", "table1") for kind in ("png", "csv", "json")}
    assert {path.name for path in (docs / "digits").iterdir()} == files
    values = json.loads((docs / "digits" / "fig4.json").read_text())
    assert (values["dataset"], values["seed"], values["title"], values["rows"]) == ("digits test", 4, "T", [{"a": 1}])
    text = (docs / "digits.md").read_text()
    assert text.startswith(
        "# The paper on digits, reproduced\n\nRendered from [digits/](digits) by `bin/reproduce.py`.\n"
    )
    # The results page keeps the order of the paper.
    assert text.index("table1.csv") < text.index("fig4.csv") and "![T](digits/fig4.png)" in text
    assert [path.name for path in reproduce.reproduce(reproduction(tmp_path))] == ["fig4.md"]
