"""What boards, publications, benches and experiments hand on, field by field; nothing is attacked or trained."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from wasser_tf import ThreatModel, attacks, models, pretrained
from wasser_tf.data.selection import ImageSource, Selection
from wasser_tf.evaluation import sweep
from wasser_tf.evaluation.metrics import Predictions
from wasser_tf.paper import drawings, experiment_output, experiments, published_numbers, reproduce, results_page
from wasser_tf.paper.classifiers import ClassifierTrainer
from wasser_tf.paper.experiment_output import ExperimentOutput
from wasser_tf.paper.presets import FULL, QUICK
from wasser_tf.paper.reproduce import ExperimentContext, Reproduction
from wasser_tf.publishing import card, leaderboard
from wasser_tf.runs import leaderboard as leaderboard_run
from wasser_tf.runs import publish
from wasser_tf.runs.leaderboard import Board
from wasser_tf.runs.publish import Publication
from wasser_tf.runtime import storage

# ---------------------------------------------------------------------------------------------- leaderboard


def test_each_dataset_has_radii_of_its_own():
    plan = {"a": attacks.make("random_plan", ThreatModel())}

    def radii(dataset, **options):
        source = ImageSource(dataset=dataset)
        return Board(source=source, attacks=plan, output_dir="o", results_dir="p", **options).radii

    assert radii("digits") == (0.02, 0.05, 0.1, 0.2, 0.3) and radii("mnist") == (0.1, 0.3, 0.5, 1.0)
    assert radii("cifar10") == (0.01, 0.02, 0.05, 0.1, 0.2) and radii("other") == (0.05, 0.1, 0.2)
    assert radii("mnist", radii=(0.7,)) == (0.7,)


@pytest.fixture
def evaluated(monkeypatch, tmp_path):
    """Runs of evaluations, which are not made; their report names the classifier."""
    runs = []

    def run_evaluation(run, **options):
        runs.append((run, options))
        name = next(iter(run.models))
        record = {
            "model": name, "epsilon": 0.1, "threat_model": {"epsilon": 0.1, "p": 2.0, "kernel_size": 5}, "seed": 6,
            "natural_accuracy": 0.75, "feasible": {"feasible_share": 1.0}, "seconds": 2.6,
        }  # fmt: skip
        other = {**record, "model": "other", "feasible": {"feasible_share": 0.0}, "seconds": 99}
        report = {
            "images": "digits test", "num_images": 4, "commit": "c", "command": "python x",
            "models": {name: {"minimal_radius": [0.0, 0.1, 0.4, "inf"], "fingerprint": "f"}, "other": {}},
            "records": [record, {**record, "epsilon": 1.0, "seconds": 7.4}, other],
            "config": {"attacks": {"x": {"name": "x", "config": {"iterations": 1, "threat_model": {}}}}},
        }  # fmt: skip
        storage.write_json(pathlib.Path(run.output_dir) / "report.json", report)

    monkeypatch.setattr(leaderboard_run, "run_evaluation", run_evaluation)
    loaded = models.build("linear", (8, 8, 1), 10, seed=0)
    monkeypatch.setattr(models, "load_classifier", lambda path: loaded if path == "a.keras" else len)
    return runs


def _board(tmp_path, **changes):
    fields = {
        "source": ImageSource(dataset="digits", num_examples=4),
        "attacks": {"x": attacks.make("random_plan", ThreatModel(p=2.0), seed=6)},
        "output_dir": str(tmp_path / "out"),
        "results_dir": str(tmp_path / "page"),
        "radii": (0.1, 1.0),
        "batch_size": 3,
    }
    return Board(**{**fields, **changes})


def test_adding_to_the_board(evaluated, tmp_path):
    told, board = [], _board(tmp_path)
    found = leaderboard_run.add_to_leaderboard(board, "my one", "a.keras", "Mine.", told.append)
    ((run, options),) = evaluated
    assert options == {"resume": True, "log": told.append}
    assert run.models == {"my one": "a.keras"} and run.source == board.source and run.attacks is board.attacks
    assert (run.radii, run.batch_size, run.sanity, run.skip_fooled) == ((0.1, 1.0), 3, False, True)
    assert run.output_dir == str(tmp_path / "out" / "my_one") and not run.minimal_radius
    assert found == {
        "name": "my one",
        "description": "Mine.",
        "dataset": "digits test",
        "num_images": 4,
        "threat_model": {"p": 2.0, "kernel_size": 5},
        "attacks": {"x": {"iterations": 1}},
        "seed": 6,
        "natural_accuracy": 0.75,
        "robust_accuracy": {"0.1": 0.5, "1": 0.25},
        "least_feasible_share": 1.0,
        "seconds": 7,
        "num_weights": 650,
        "fingerprint": "f",
        "commit": "c",
        "command": "python x",
    }
    stored = tmp_path / "page" / "leaderboard" / "digits" / "p2-k5-normalized-capacity1" / "my_one.json"
    assert json.loads(stored.read_text()) == found and "| my one" in (tmp_path / "page" / "leaderboard.md").read_text()
    # Only a Keras model says how many weights it has; an entry of the same name is replaced.
    assert leaderboard_run.add_to_leaderboard(board, "my one", "b.npz")["num_weights"] is None
    assert [one["description"] for one in leaderboard.entries(tmp_path / "page")] == [""]
    leaderboard_run.add_to_leaderboard(_board(tmp_path, source=ImageSource(dataset="mnist")), "other one", "a.keras")
    assert [one["name"] for one in leaderboard.entries(tmp_path / "page", "mnist")] == ["other one"]
    assert [one["name"] for one in leaderboard.entries(tmp_path / "page")] == ["my one", "other one"]


def _entry(name, robust, natural=0.9, **changes):
    return {
        "name": name,
        "description": "",
        "dataset": "d test",
        "num_images": 12_000,
        "threat_model": {"p": 1.0},
        "attacks": {"x": {"iterations": 3}},
        "natural_accuracy": natural,
        "robust_accuracy": robust,
        "num_weights": 1234,
        "commit": None,
        **changes,
    }


def _names(text):
    return [line.split("|")[1].strip() for line in text.splitlines()[2:]]


def test_the_board_is_sorted_by_the_middle_of_the_shared_radii():
    a = _entry("a", {"0.1": 0.9, "0.2": 0.2, "0.3": 0.9})
    b = _entry("b", {"0.1": 0.1, "0.2": 0.4, "0.3": 0.1})
    assert _names(leaderboard.leaderboard_table([a, b])) == ["b", "a"]
    # Of two radii the larger; radii that one has alone do not sort.
    c = _entry("c", {"0.1": 0.5, "0.3": 0.5, "0.05": 1.0})
    assert _names(leaderboard.leaderboard_table([a, b, c])) == ["a", "c", "b"]
    # Of equals the more accurate; with no radius in common the more accurate alone.
    assert _names(leaderboard.leaderboard_table([b, {**b, "name": "d", "natural_accuracy": 0.95}])) == ["d", "b"]
    e = _entry("e", {"0.7": 0.0}, natural=0.99)
    assert _names(leaderboard.leaderboard_table([a, b, e])) == ["e", "a", "b"]
    header, _, row, *_ = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in leaderboard.leaderboard_table([c, a]).splitlines()
    ]
    assert header == [
        "classifier", "weights", "natural", "ε = 0.05", "ε = 0.1", "ε = 0.2", "ε = 0.3", "images", "attack", "commit",
    ]  # fmt: skip
    assert row == [
        "a",
        "1,234",
        "90.00 %",
        "–",
        "90.00 %",
        "20.00 %",
        "90.00 %",
        "12,000",
        "x, 3 iterations",
        "unknown",
    ]


def test_words_of_entries():
    assert leaderboard.percent(None) == "–" and leaderboard.percent(0.12345) == "12.35 %"
    assert [leaderboard.short_commit(commit) for commit in (None, "0123456789", "0123456789-dirty")] == [
        "unknown", "01234567", "01234567-dirty",
    ]  # fmt: skip
    words = leaderboard.ball_in_words(_entry("a", {}))
    assert words.startswith("Wasserstein ball: ε normalised") and words.endswith("none crossed")
    assert leaderboard.attacks_in_words({"a": {"iterations": 3, "restarts": 1}}) == "a, 3 iterations"
    both = {"a:1": {"iterations": 3, "restarts": 2}, "b": {"iterations": 3, "restarts": 5}}
    assert leaderboard.attacks_in_words(both) == "a, 3 iterations, 2 restarts; b, 3 iterations, 5 restarts"


# ---------------------------------------------------------------------------------------------- publishing


def test_a_publication_says_what_it_is(run, board, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "shelf")
    added = []
    monkeypatch.setattr(publish, "add_to_leaderboard", lambda *given: added.append(given) or "the entry")
    written = []
    monkeypatch.setattr(
        card, "write_card", lambda *given: written.append(given) or (tmp_path / "shelf").mkdir(exist_ok=True)
    )
    models.build("mlp", (8, 8, 1), 10, seed=0).save(run / "standard.keras")
    config = Publication(run=str(run), name="mine", board=board, file="standard.keras")
    path = publish.publish(config, log=print)
    packed = pathlib.Path(board.output_dir) / "mine.keras"
    assert path == tmp_path / "shelf" / "mine.keras" and path.read_bytes() == packed.read_bytes()
    ((given_board, name, file, metadata, log),) = added
    assert given_board is board and (name, file, log) == ("mine", str(packed), print)
    assert metadata == "mlp, standard training, seed 5; comes with the package."
    ((place, described, training, entry),) = written
    classifier = models.load_classifier(packed)
    assert place == path and entry == "the entry" and training == card.training_of(run)
    assert described == {
        "model": "mlp",
        "image_shape": [8, 8, 1],
        "num_classes": 10,
        "num_weights": classifier.count_params(),
        "bytes": packed.stat().st_size,
        "file": "standard.keras",
    }
    publish.publish(dataclasses.replace(config, file="best.keras", name="other"), "Said.")
    assert added[1][3] == "Said."
    publish.publish(dataclasses.replace(config, file="best.keras", name="other"))
    assert added[2][3] == "linear, WasserTrain, mirror_ascent, seed 5; comes with the package."


@pytest.mark.parametrize("name", ["", "A", "a-b", "a b", "a/b", 3])
def test_names_that_are_refused(board, name):
    with pytest.raises(ValueError, match="name must be of small letters, digits and underscores, got"):
        Publication(run="r", name=name, board=board)


def test_the_card(run):
    training = {**card.training_of(run), "versions": {"keras": "3", "tensorflow": "2"}, "commit": "d" * 40}
    classifier = {
        "model": "linear", "image_shape": [8, 9, 1], "num_weights": 12345, "num_classes": 10, "bytes": 67_890,
        "file": "best.keras",
    }  # fmt: skip
    evaluation = {
        **_entry("mine", {"0.1": 0.5, "0.3": 0.25}), "seed": 6, "least_feasible_share": 0.75, "fingerprint": "f" * 64,
        "command": "python y", "commit": "e" * 40,
    }  # fmt: skip
    text = card.card_markdown(
        {"name": "mine", "classifier": classifier, "training": training, "evaluation": evaluation}
    )
    for part in (
        "# mine\n\nlinear, 12,345 weights, from 8×9×1 images in [0, 1]\nto 10 logits; 0.07 MB,",
        'wasser_tf.load_pretrained("mine")',
        "| accuracy         | 12,000 images of d test |\n",
        "| natural          |                 90.00 % |\n| robust at ε = 0.1 |".replace(
            "natural          ", "natural           "
        ),
        "50.00 % |\n| robust at ε = 0.3 |",
        "Attacked with x, 3 iterations, seed\n6; every example is feasible\n(75.00 % feasible). Measured on this file",
        f"`{'f' * 16}…`) at commit eeeeeeee:\n\n```bash\npython y\n```",
        "`best.keras` of this run, seed 5, at commit dddddddd:\n\n```bash\npython bin/train.py ",
        "p = 2 (cost Euclidean^p in pixels), local 5×5 plan, capacity 1, one budget for all channels, none crossed. "
        "Versions: keras 3, tensorflow 2.",
    ):
        assert part.split("|")[0] in text if part.startswith("| accuracy") else part in text, part
    del classifier["model"]
    assert "\nlinear, 12,345" in card.card_markdown(
        {"name": "mine", "classifier": classifier, "training": training, "evaluation": evaluation}
    )


# ---------------------------------------------------------------------------------------------- reproducing


def _reproduction(tmp_path, **changes):
    fields = {
        "experiments": ["fig4"],
        "dataset": "digits",
        "data_dir": "sets",
        "download": True,
        "original_index": "order",
        "output_dir": str(tmp_path / "out"),
        "preset": QUICK["digits"],
        "given": {"standard": "s.keras"},
        "others": {"mine": "m.keras"},
        "recipe": "paper",
        "seed": 4,
        "batch_size": 16,
    }
    return Reproduction(**{**fields, **changes})


def test_a_bench_hands_on_its_settings(tmp_path, monkeypatch):
    config = _reproduction(tmp_path)
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


def test_attacks_of_a_bench(tmp_path):
    context = ExperimentContext(_reproduction(tmp_path), print)
    made = context.attack("mirror_ascent")
    assert made is context.attack("mirror_ascent")
    wanted = attacks.make("mirror_ascent", ThreatModel(epsilon=0.0), seed=4, iterations=40)
    assert attacks.serialize(made) == attacks.serialize(wanted)
    # Settings of the dataset take precedence.
    assert context.attack("wasser_attack").iterations == 200
    context = ExperimentContext(_reproduction(tmp_path, preset=FULL["cifar10"]), print)
    assert context.attack("projected_sinkhorn").regularization == 3000
    usual = attacks.make("mirror_ascent", ThreatModel()).iterations
    assert context.attack("mirror_ascent").iterations == usual


def test_evaluations_of_a_bench(tmp_path, monkeypatch):
    runs = []
    monkeypatch.setattr(reproduce, "run_evaluation", lambda run, **options: runs.append((run, options)) or ["report"])
    context = ExperimentContext(_reproduction(tmp_path), print)
    assert context.evaluation("mine", ["mirror_ascent", "random_plan"]) == "report"
    ((run, options),) = runs
    assert options == {"resume": True, "log": print}
    assert run.models == {"mine": "m.keras"} and run.source == context.source(48) and run.radii == QUICK["digits"].radii
    assert run.attacks == {name: context.attack(name) for name in ("mirror_ascent", "random_plan")}
    assert run.output_dir == str(tmp_path / "out" / "evaluations" / "mine")
    assert (run.sanity, run.batch_size, run.skip_fooled, run.minimal_radius) == (False, 16, False, False)
    ExperimentContext(_reproduction(tmp_path, batch_size=100), print).evaluation("mine", ["random_plan"])
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
        _reproduction(tmp_path, **changes)


def test_roles(tmp_path):
    assert _reproduction(tmp_path).roles == ("standard", "pgd", "wasser_train")
    assert _reproduction(tmp_path, leave_out=("pgd",)).roles == ("standard", "wasser_train")
    both = _reproduction(tmp_path, leave_out=["pgd", "wasser_train"])
    assert both.roles == ("standard",)


@pytest.fixture
def making(tmp_path, monkeypatch):
    """Experiments that are made at once, and what is looked at before."""
    looked = []
    images = Selection("d", np.arange(3), np.zeros([3, 8, 8, 1], np.float32), np.zeros(3, int), None)
    monkeypatch.setattr(ImageSource, "load", lambda self: looked.append(self.num_examples) or images)
    monkeypatch.setattr(ClassifierTrainer, "prepare_process", lambda self: looked.append("prepared"))
    monkeypatch.setattr(models, "load_classifier", lambda path: looked.append(path) or len)
    monkeypatch.setattr(
        reproduce, "check_batch", lambda classifier, given, labels: looked.append((classifier, len(given), len(labels)))
    )
    monkeypatch.setattr(ExperimentContext, "attack", lambda self, name: looked.append(name))

    def experiment(name):
        def make(context):
            (context.folder / f"{name}.png").parent.mkdir(parents=True, exist_ok=True)
            (context.folder / f"{name}.png").write_text(name)
            fields = {"title": "T", "rows": [{"a": 1}], "table": "| t |\n", "num_images": 3, "threat_model": "B"}
            return ExperimentOutput(name=name, settings={}, pictures=[f"{name}.png"], **fields)

        return make

    monkeypatch.setattr(experiments, "EXPERIMENTS", {name: experiment(name) for name in ("table1", "fig4")})
    return looked


def test_reproducing(tmp_path, making):
    told = []
    config = _reproduction(
        tmp_path, experiments=["fig4", "table1"], attacks=("x", "y"), publish_dir=str(tmp_path / "docs")
    )
    written = reproduce.reproduce(config, told.append)
    folder, docs = tmp_path / "out" / "outputs", tmp_path / "docs"
    assert written == [folder / "fig4.md", folder / "table1.md", docs / "digits.md"] and told == ["fig4", "table1"]
    # All that can be wrong is looked at before anything is trained.
    assert making == ["prepared", 48, "s.keras", (len, 1, 1), "m.keras", (len, 1, 1), "x", "y"]
    files = {f"{name}.{kind}" for name in ("fig4", "table1") for kind in ("png", "csv", "json")}
    assert {path.name for path in (docs / "digits").iterdir()} == files
    values = json.loads((docs / "digits" / "fig4.json").read_text())
    assert (values["dataset"], values["seed"], values["title"], values["rows"]) == ("digits test", 4, "T", [{"a": 1}])
    text = (docs / "digits.md").read_text()
    assert text.startswith(
        "# The paper on digits, reproduced\n\nRendered from [digits/](digits) by `bin/reproduce.py`.\n"
    )
    # In the order of the paper.
    assert text.index("table1.csv") < text.index("fig4.csv") and "![T](digits/fig4.png)" in text
    assert [path.name for path in reproduce.reproduce(_reproduction(tmp_path))] == ["fig4.md"]


# ---------------------------------------------------------------------------------------------- experiments


def test_fig1_is_of_images_that_the_classifier_knows(tmp_path, monkeypatch):
    count = 40
    images = np.arange(count, dtype=np.float32)[:, None, None, None] * np.ones([1, 2, 2, 1], np.float32) / 100
    selection = Selection("d", np.arange(count) + 100, images, np.arange(count), ("n",))
    context = ExperimentContext(_reproduction(tmp_path), print)
    context.images = selection
    asked, drawn = [], []
    monkeypatch.setattr(models, "load_classifier", lambda path: path)
    monkeypatch.setattr(sweep, "fingerprint", lambda path: f"print of {path}")

    def predict(classifier, given, labels):
        asked.append((classifier, len(given)))
        return Predictions(labels + 7, labels < 20, labels)

    class Attack:
        def __init__(self, name, ball, seed=None):
            self.name, self.threat_model, self.seed, self.change = (
                name,
                ball,
                seed,
                0.125 if name == "linf_pgd" else 0.5,
            )

        def __call__(self, classifier, given, labels, *, radius, index):
            asked.append((self.name, classifier, radius, index.tolist(), self.seed))
            feasibility = type("C", (), {"cost": labels / 100})
            changed = given.copy()
            changed[:, 0, 0] -= self.change
            return type("R", (), {"adversarial": changed, "feasibility": feasibility})

    monkeypatch.setattr(experiments.metrics, "predict", predict)
    monkeypatch.setattr(experiments.metrics, "predict_unchecked", predict)
    monkeypatch.setattr(attacks, "make", lambda name, ball, seed: Attack(name, ball, seed))
    monkeypatch.setattr(attacks, "serialize", lambda attack: attack.name)
    monkeypatch.setattr(context, "attack", lambda name: Attack(name, ThreatModel(), "context"))
    monkeypatch.setattr(drawings, "save_side_by_side", lambda *given, **options: drawn.append((given, options)))
    made = experiments.fig1(context)
    preset, index = QUICK["digits"], [120, 121, 122, 123, 124, 125]
    assert asked == [
        ("s.keras", 30), ("linf_pgd", "s.keras", preset.linf_epsilon, index, 4), ("s.keras", 6),
        ("wasser_attack", "s.keras", preset.epsilon_drawn, index, "context"), ("s.keras", 6),
    ]  # fmt: skip
    assert made.rows[1] == {
        "index": 121, "label": 21, "linf_prediction": 28, "linf_largest_change": 0.125, "wasserstein_prediction": 28,
        "wasserstein_largest_change": 0.5, "wasserstein_cost": 0.21,
    }  # fmt: skip
    assert (made.name, made.num_images, made.pictures) == ("fig1", 6, ["fig1.png"])
    assert "| 121   |    21 |" in made.table and "0.210" in made.table and "0.50 |" in made.table
    assert made.threat_model.startswith("Wasserstein ball: epsilon 0.2 ") and made.threat_model.endswith(
        "by 0.2 at most"
    )
    assert made.settings == {
        "attacks": {"linf": "linf_pgd", "wasserstein": "wasser_attack"},
        "classifiers": {"standard": "print of s.keras"},
    }
    ((path, clean, labels, attacked), options) = drawn[0]
    assert path == context.folder / "fig1.png" and labels.tolist() == list(range(20, 26)) and len(clean) == 6
    assert [one.name for one in attacked] == ["ℓ∞ ball", "Wasserstein ball"] and options["class_names"] == ("n",)
    monkeypatch.setattr(experiments.metrics, "predict", lambda *given: Predictions(None, np.ones(30, bool), None))
    with pytest.raises(ValueError, match="knows none of the first images"):
        experiments.fig1(context)


def test_table1(tmp_path, monkeypatch):
    context = ExperimentContext(_reproduction(tmp_path, dataset="mnist", leave_out=("pgd",)), print)
    context.images = Selection("d", np.arange(4), np.zeros([4, 2, 2, 1]), np.zeros(4, int), None)
    monkeypatch.setattr(context, "path", lambda name: f"{name}.keras")
    monkeypatch.setattr(models, "load_classifier", lambda path: path)
    monkeypatch.setattr(sweep, "fingerprint", lambda path: f"print of {path}")
    share = {"standard.keras": 0, "wasser_train.keras": 1, "mine.keras": 3}
    monkeypatch.setattr(
        experiments.metrics,
        "predict",
        lambda classifier, *given: Predictions(None, np.arange(4) < share[classifier], None),
    )
    made = experiments.table1(context)
    assert made.rows == [
        {"classifier": "standard", "natural_accuracy": 1.0, "paper": 0.989},
        {"classifier": "wasser_train", "natural_accuracy": 0.75, "paper": 0.9823},
        {"classifier": "mine", "natural_accuracy": 0.25, "paper": None},
    ]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in made.table.splitlines()]
    assert rows[0] == ["classifier", "natural accuracy", "the paper"] and rows[3:] == [
        ["wasser_train", "75.00 %", "98.23 %"], ["mine", "25.00 %", "–"],
    ]  # fmt: skip
    assert made.num_images == 4 and made.threat_model == "Natural accuracy: no attack"
    assert made.settings["classifiers"]["mine"] == "print of mine.keras"
    assert (
        list(experiments.EXPERIMENTS)
        == ["table1", "fig1", "fig3", "fig4", "fig5", "beyond"]
        == list(results_page.NAMES)
    )
    assert all(make.__name__ == name for name, make in experiments.EXPERIMENTS.items())


def test_a_pivot_has_a_dash_where_there_is_nothing():
    rows = [
        {"a": "x", "b": 1, "e": 0.3, "v": 0.5},
        {"a": "x", "b": 1, "e": 0.1, "v": 0.25},
        {"a": "y", "b": 2, "e": 0.1, "v": 1},
    ]
    text = experiment_output.pivot(rows, ["a", "b"], "e", "v", ".0%")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert cells[0] == ["a", "b", "ε = 0.1", "ε = 0.3"] and cells[2:] == [
        ["x", "1", "25%", "50%"],
        ["y", "2", "100%", "–"],
    ]
    assert [rule.strip()[-1] for rule in text.splitlines()[1].split("|")[3:-1]] == [":", ":"]


def test_the_papers_numbers():
    """Table 1, Fig. 4 and Fig. 5 of the paper."""
    mnist, cifar10 = published_numbers.PAPERS["mnist"], published_numbers.PAPERS["cifar10"]
    assert mnist.natural == {"standard": 0.9890, "pgd": 0.9705, "wasser_train": 0.9823}
    assert cifar10.natural == {"standard": 0.9470, "pgd": 0.8069, "wasser_train": 0.8637}
    assert mnist.full_success == {"wasser_attack": 0.9, "projected_sinkhorn": 1.4} and not cifar10.full_success
    assert mnist.success == {
        ("wasser_attack", 0.5, "pgd"): 0.91, ("wasser_attack", 0.5, "wasser_train"): 0.69,
        ("projected_sinkhorn", 2.0, "pgd"): 0.22, ("projected_sinkhorn", 2.0, "wasser_train"): 0.14,
    }  # fmt: skip
    assert cifar10.success == {
        ("wasser_attack", 0.05, "pgd"): 0.85, ("wasser_attack", 0.05, "wasser_train"): 0.53,
        ("projected_sinkhorn", 0.5, "pgd"): 0.43, ("projected_sinkhorn", 0.5, "wasser_train"): 0.20,
    }  # fmt: skip
    assert published_numbers.ROLES == ("standard", "pgd", "wasser_train")


@pytest.mark.parametrize("name", ["standard_epochs", "polish"])
def test_sizes_may_be_0(name):
    assert getattr(dataclasses.replace(QUICK["digits"], **{name: 0}), name) == 0


@pytest.mark.parametrize(
    "name, value",
    [
        ("omegas", (1.5,)), ("omegas", (-0.1,)), ("omegas", (True,)), ("omegas", 0.5), ("radii", (0.0,)),
        ("radii", (np.inf,)), ("radii", ("a",)), ("epsilon", -0.1), ("epsilon_drawn", -1), ("linf_epsilon", -1),
        ("step_size", 0.0), ("standard_epochs", -1), ("epochs", 0), ("omega_epochs", 0), ("batch_size", 0),
        ("iterations", 0), ("pgd_iterations", 0), ("num_examples", 0), ("attack_iterations", 0), ("polish", -1),
        ("epochs", 1.5),
    ],
)  # fmt: skip
def test_sizes_that_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} must"):
        dataclasses.replace(QUICK["digits"], **{name: value})


def test_omegas_may_be_0_and_1():
    assert dataclasses.replace(QUICK["digits"], omegas=(0.0, 1.0)).omegas == (0.0, 1.0)
