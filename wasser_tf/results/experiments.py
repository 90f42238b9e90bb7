"""Each table and figure of the paper as a function of the bench. A new one is a function here and a line below."""

import csv
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wasser_tf import ThreatModel, attacks, data, models, storage
from wasser_tf.evaluation import figures, metrics, paper_figures, sweep, tables
from wasser_tf.evaluation.paper_figures import Attacked
from wasser_tf.evaluation.record import WORST_CASE, Record
from wasser_tf.results.artefact import Artefact, pivot
from wasser_tf.results.leaderboard import percent
from wasser_tf.results.paper import PAPERS, PGD, WASSER
from wasser_tf.results.reproduce import Bench
from wasser_tf.training import run_folder

_COLUMNS = 6
_NO_ATTACK = "Natural accuracy: no attack"


def table1(bench: Bench) -> Artefact:
    """Natural accuracy of standard, PGD-based training and WasserTrain, on the whole test set."""
    paper = PAPERS[bench.config.dataset].natural if bench.config.dataset in PAPERS else {}
    images = bench.images
    rows: list[dict[str, Any]] = []
    for name in (*bench.config.roles, *bench.config.others):
        classifier = models.load_classifier(bench.path(name))
        wrong = metrics.predict(classifier, images.images, images.labels).wrong
        rows.append({"classifier": name, "natural_accuracy": float(np.mean(~wrong)), "paper": paper.get(name)})
    cells = [[row["classifier"], percent(row["natural_accuracy"]), percent(row["paper"])] for row in rows]
    return Artefact(
        name="table1",
        title="Table 1: natural accuracy",
        rows=rows,
        table=tables.markdown_table(["classifier", "natural accuracy", "the paper"], cells),
        num_images=len(images.labels),
        threat_model=_NO_ATTACK,
        settings={"classifiers": _fingerprints(bench, [row["classifier"] for row in rows])},
    )


def fig1(bench: Bench) -> Artefact:
    """Clean images, perturbations and examples of the standard model in the ℓ∞ and in the Wasserstein ball."""
    scale, classifier = bench.config.scale, models.load_classifier(bench.path("standard"))
    # A few more than are drawn: an image that is wrong anyway shows nothing.
    images, labels = bench.images.images[: 5 * _COLUMNS], bench.images.labels[: 5 * _COLUMNS]
    known = np.flatnonzero(~metrics.predict(classifier, images, labels).wrong)[:_COLUMNS]
    if not len(known):
        raise ValueError("The standard classifier knows none of the first images: train it longer.")
    images, labels = images[known], labels[known]
    linf = attacks.make("linf_pgd", ThreatModel(epsilon=scale.linf_epsilon), seed=bench.config.seed)
    wasser, radius = bench.attack(WASSER), scale.epsilon_drawn
    index = bench.images.index[known]
    drawn, results = [], {}
    for name, attack, epsilon in (("ℓ∞ ball", linf, scale.linf_epsilon), ("Wasserstein ball", wasser, radius)):
        results[name] = found = attack(classifier, images, labels, radius=epsilon, index=index)
        predicted = metrics.predict_unchecked(classifier, found.adversarial, labels).predicted
        drawn.append(Attacked(name, found.adversarial, predicted))
    words = f"{wasser.threat_model.with_epsilon(radius)}; ℓ∞ ball: pixels change by {scale.linf_epsilon:g} at most"
    paper_figures.save_side_by_side(
        bench.folder / "fig1.png",
        images,
        labels,
        drawn,
        title="The standard classifier in two balls",
        caption=f"Above each image: label → prediction, red where the classifier is wrong.\n{words}.",
        class_names=bench.images.class_names,
    )
    moved = results["Wasserstein ball"].certificate
    rows = [
        {
            "index": int(index[number]),
            "label": int(labels[number]),
            "linf_prediction": int(drawn[0].predictions[number]),
            "linf_largest_change": float(np.abs(drawn[0].images[number] - images[number]).max()),
            "wasserstein_prediction": int(drawn[1].predictions[number]),
            "wasserstein_largest_change": float(np.abs(drawn[1].images[number] - images[number]).max()),
            "wasserstein_cost": float(moved.cost[number]),
        }
        for number in range(len(labels))
    ]
    header = ["image", "label", "in the ℓ∞ ball", "in the Wasserstein ball", "its cost", "its largest change"]
    cells = [
        [
            *(str(row[key]) for key in ("index", "label", "linf_prediction", "wasserstein_prediction")),
            f"{row['wasserstein_cost']:.3f}",
            f"{row['wasserstein_largest_change']:.2f}",
        ]
        for row in rows
    ]
    return Artefact(
        name="fig1",
        title="Fig. 1: the ℓ∞ ball and the Wasserstein ball",
        rows=rows,
        table=tables.markdown_table(header, cells),
        num_images=len(labels),
        threat_model=words,
        settings={
            "attacks": {"linf": attacks.serialize(linf), "wasserstein": attacks.serialize(wasser)},
            "classifiers": _fingerprints(bench, ["standard"]),
        },
        pictures=["fig1.png"],
    )


def fig3(bench: Bench) -> Artefact:
    """Natural accuracy against epochs for each ω, on validation images: nothing may be chosen by the test images."""
    curves: dict[str, list[float]] = {}
    rows: list[dict[str, Any]] = []
    for omega in bench.config.scale.omegas:
        folder = bench.omega_run(omega)
        with open(folder / run_folder.HISTORY, encoding="utf-8") as file:
            history = [float(line["val_accuracy"]) for line in csv.DictReader(file)]
        curves[f"ω = {omega:g}"] = history
        rows += [
            {"omega": omega, "epoch": epoch, "natural_accuracy": value} for epoch, value in enumerate(history, start=1)
        ]
    label = "natural accuracy, validation images [%]"
    title = "Natural accuracy against epochs"
    caption = f"WasserTrain of {bench.config.scale.model} from scratch, recipe {bench.config.recipe}."
    paper_figures.save_epoch_curves(bench.folder / "fig3.png", curves, title=title, label=label, caption=caption)
    cells = [[name, percent(values[0]), percent(max(values)), percent(values[-1])] for name, values in curves.items()]
    trained = _training(bench, bench.config.scale.omegas[0])
    return Artefact(
        name="fig3",
        title="Fig. 3: natural accuracy against epochs",
        rows=rows,
        table=tables.markdown_table(["natural accuracy, validation", "first epoch", "best", "last"], cells),
        num_images=trained.pop("validation_images"),
        split="validation",
        threat_model=f"Trained in: {trained.pop('threat_model_in_words')}",
        settings=trained,
        pictures=["fig3.png"],
    )


def fig4(bench: Bench) -> Artefact:
    """Success, cross-entropy and precision error against ε on the standard model, raw and certified."""
    names = [WASSER, PGD, *(name for name in bench.config.attacks if name != "ensemble")]
    records = bench.evaluation("standard", names).records
    return _curves(bench, "fig4", "Fig. 4: attacks on the standard classifier", ["standard"], records)


def fig5(bench: Bench) -> Artefact:
    """The paper's two attacks on PGD-based training and WasserTrain, or on what is not left out of them."""
    classifiers = [role for role in bench.config.roles if role != "standard"]
    found = [record for name in classifiers for record in bench.evaluation(name, [WASSER, PGD]).records]
    return _curves(bench, "fig5", "Fig. 5: the paper's attacks on the trained classifiers", classifiers, found)


def beyond(bench: Bench) -> Artefact:
    """What the paper lacks: all classifiers under all attacks, the ensemble among them; certified alone."""
    names = list(dict.fromkeys([WASSER, PGD, *bench.config.attacks]))
    classifiers = [*bench.config.roles, *bench.config.others]
    reports = [bench.evaluation(name, names) for name in classifiers]
    records = [record for report in reports for record in report.records]
    threat_model = ThreatModel.from_config(records[0].threat_model)
    figures.save_accuracy_curves(
        bench.folder / "beyond.png",
        {report.name: report.minimal_radii for report in reports},
        threat_model=threat_model,
        title="Robust accuracy, the worst case over all attacks",
        max_radius=max(bench.config.scale.radii),
    )
    rows = [_row(record) for record in records]
    return Artefact(
        name="beyond",
        title="Beyond the paper: robust accuracy of certified examples",
        rows=rows,
        table=pivot(rows, ["classifier", "attack"], "epsilon", "robust_accuracy", ".2%"),
        num_images=records[0].num_images,
        threat_model=_words(records[0]),
        settings=_settings(bench, classifiers, records),
        pictures=["beyond.png"],
    )


EXPERIMENTS: dict[str, Callable[[Bench], Artefact]] = {
    "table1": table1,
    "fig1": fig1,
    "fig3": fig3,
    "fig4": fig4,
    "fig5": fig5,
    "beyond": beyond,
}


def _curves(bench: Bench, name: str, title: str, classifiers: Sequence[str], records: Sequence[Record]) -> Artefact:
    """Draws and tabulates records of several attacks, or several classifiers."""
    lines: dict[str, list[Record]] = {}
    for record in records:
        if record.attack != WORST_CASE:
            label = record.attack if len(classifiers) == 1 else f"{record.attack} on {record.model}"
            lines.setdefault(label, []).append(record)
    paper_figures.save_raw_and_certified(bench.folder / f"{name}.png", lines, title=title)
    rows = [_row(record) for members in lines.values() for record in members]
    index = ["classifier", "attack"]
    shown = (
        ("success, raw", "raw_success", ".1%"),
        ("success, certified", "success", ".1%"),
        ("mean cross-entropy, raw", "raw_cross_entropy", ".3g"),
        ("mean cross-entropy, certified", "cross_entropy", ".3g"),
        ("mean precision error, raw", "raw_precision_error", ".1e"),
    )
    parts = [f"{heading}:\n\n{pivot(rows, index, 'epsilon', key, form)}" for heading, key, form in shown]
    return Artefact(
        name=name,
        title=title,
        rows=rows,
        table="\n".join(parts),
        num_images=records[0].num_images,
        threat_model=_words(records[0]),
        settings=_settings(bench, classifiers, records),
        pictures=[f"{name}.png"],
    )


def _row(record: Record) -> dict[str, Any]:
    return {
        "classifier": record.model,
        "attack": record.attack,
        "epsilon": record.epsilon,
        "success": record.certified.success_rate,
        "robust_accuracy": record.certified.robust_accuracy,
        "cross_entropy": record.certified.cross_entropy,
        "precision_error": record.certified.precision_error_mean,
        "max_cost_ratio": record.certified.max_cost_ratio,
        "legal_share": record.certified.legal_share,
        "raw_success": record.raw.success_rate,
        "raw_cross_entropy": record.raw.cross_entropy,
        "raw_precision_error": record.raw.precision_error_mean,
        "raw_max_cost_ratio": record.raw.max_cost_ratio,
        "raw_max_pixel": record.raw.max_pixel,
        "raw_legal_share": record.raw.legal_share,
        "natural_accuracy": record.natural_accuracy,
        "mean_iterations": record.mean_iterations,
        "seconds": record.seconds,
    }


def _words(record: Record) -> str:
    return tables.threat_model_caption(record.threat_model)


def _settings(bench: Bench, classifiers: Sequence[str], records: Sequence[Record]) -> dict[str, Any]:
    used = {record.attack: record.settings for record in records if record.settings}
    return {"attacks": used, "classifiers": _fingerprints(bench, classifiers)}


def _fingerprints(bench: Bench, classifiers: Sequence[str]) -> dict[str, str]:
    return {name: sweep.fingerprint(bench.path(name)) for name in classifiers}


def _training(bench: Bench, omega: float) -> dict[str, Any]:
    """Returns what the trainings of Fig. 3 share but for ω, and on how many images they were validated."""
    about = storage.read_json(bench.omega_run(omega) / run_folder.CONFIG)
    config = bench.config
    validation = data.load(
        config.dataset, data_dir=config.data_dir, download=config.download, splits=("validation",)
    ).validation
    return {
        "training": about["config"],
        "threat_model_in_words": about["threat_model_in_words"],
        "validation_images": len(validation.labels),
    }
