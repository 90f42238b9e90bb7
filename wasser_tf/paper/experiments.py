"""The tables and figures of the paper, each a function from an `ExperimentContext` to an `ExperimentOutput`.

To add one, write a function and add it to `EXPERIMENTS`.
"""

import csv
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wasser_tf import attacks, data
from wasser_tf.evaluation import fingerprint, metrics
from wasser_tf.evaluation.record import WORST_CASE, Record
from wasser_tf.paper import drawings
from wasser_tf.paper.certified import certified
from wasser_tf.paper.context import ExperimentContext
from wasser_tf.paper.drawings import Attacked
from wasser_tf.paper.experiment_output import ExperimentOutput, pivot
from wasser_tf.paper.published_numbers import PAPERS, PGD, WASSER
from wasser_tf.reporting import figures, tables
from wasser_tf.runtime import storage
from wasser_tf.runtime.formatting import percent
from wasser_tf.threat_model import ThreatModel
from wasser_tf.training import run_folder

_COLUMNS = 6
_NO_ATTACK = "Natural accuracy: no attack"


def table1(context: ExperimentContext) -> ExperimentOutput:
    """Makes Table 1: natural accuracy of all classifiers on the whole test set."""
    paper = PAPERS[context.config.dataset].natural if context.config.dataset in PAPERS else {}
    images = context.images
    rows: list[dict[str, Any]] = []
    for name in (*context.config.roles, *context.config.others):
        classifier = context.classifier(name)
        wrong = metrics.predict(classifier, images.images, images.labels).wrong
        rows.append({"classifier": name, "natural_accuracy": float(np.mean(~wrong)), "paper": paper.get(name)})
    cells = [[row["classifier"], percent(row["natural_accuracy"]), percent(row["paper"])] for row in rows]
    return ExperimentOutput(
        name="table1",
        title="Table 1: natural accuracy",
        rows=rows,
        table=tables.markdown_table(["classifier", "natural accuracy", "the paper"], cells),
        num_images=len(images.labels),
        threat_model=_NO_ATTACK,
        settings={"classifiers": _fingerprints(context, [row["classifier"] for row in rows])},
    )


def fig1(context: ExperimentContext) -> ExperimentOutput:
    """Makes Fig. 1: clean images, perturbations and examples of the standard model in the ℓ∞ and Wasserstein balls."""
    preset, classifier = context.config.preset, context.classifier("standard")
    # More images than are drawn, because misclassified images are skipped.
    images, labels = context.images.images[: 5 * _COLUMNS], context.images.labels[: 5 * _COLUMNS]
    correct = np.flatnonzero(~metrics.predict(classifier, images, labels).wrong)[:_COLUMNS]
    if not len(correct):
        raise ValueError(f"The standard classifier misclassifies the first {len(labels)} images: train it longer.")
    images, labels = images[correct], labels[correct]
    linf = attacks.make("linf_pgd", ThreatModel(epsilon=preset.linf_epsilon), seed=context.config.seed)
    wasser, radius = context.attack(WASSER), preset.epsilon_drawn
    index = context.images.index[correct]
    drawn, results = [], {}
    for name, attack, epsilon in (("ℓ∞ ball", linf, preset.linf_epsilon), ("Wasserstein ball", wasser, radius)):
        results[name] = found = attack(classifier, images, labels, radius=epsilon, index=index)
        predicted = metrics.predict_unchecked(classifier, found.adversarial, labels).predicted
        drawn.append(Attacked(name, found.adversarial, predicted))
    words = f"{wasser.threat_model.with_epsilon(radius)}; ℓ∞ ball: pixels change by at most {preset.linf_epsilon:g}"
    drawings.save_side_by_side(
        context.folder / "fig1.png",
        images,
        labels,
        drawn,
        title="The standard classifier in two balls",
        caption=f"Above each image: label → prediction; red if the prediction is wrong.\n{words}.",
        class_names=context.images.class_names,
    )
    moved = results["Wasserstein ball"].feasibility
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
    return ExperimentOutput(
        name="fig1",
        title="Fig. 1: the ℓ∞ ball and the Wasserstein ball",
        rows=rows,
        table=tables.markdown_table(header, cells),
        num_images=len(labels),
        threat_model=words,
        settings={
            "attacks": {"linf": attacks.serialize(linf), "wasserstein": attacks.serialize(wasser)},
            "classifiers": _fingerprints(context, ["standard"]),
        },
        pictures=["fig1.png"],
    )


def fig3(context: ExperimentContext) -> ExperimentOutput:
    """Makes Fig. 3: natural accuracy against epochs for each ω, on the validation split.

    The test split is not used, because nothing may be chosen by it.
    """
    curves: dict[str, list[float]] = {}
    rows: list[dict[str, Any]] = []
    for omega in context.config.preset.omegas:
        folder = context.omega_run(omega)
        with open(folder / run_folder.HISTORY, encoding="utf-8") as file:
            history = [float(line["val_accuracy"]) for line in csv.DictReader(file)]
        curves[f"ω = {omega:g}"] = history
        rows += [
            {"omega": omega, "epoch": epoch, "natural_accuracy": value} for epoch, value in enumerate(history, start=1)
        ]
    label = "natural accuracy, validation images [%]"
    title = "Natural accuracy against epochs"
    caption = f"WasserTrain of {context.config.preset.model} from scratch, recipe {context.config.recipe}."
    drawings.save_epoch_curves(context.folder / "fig3.png", curves, title=title, label=label, caption=caption)
    cells = [[name, percent(values[0]), percent(max(values)), percent(values[-1])] for name, values in curves.items()]
    trained = _training(context, context.config.preset.omegas[0])
    return ExperimentOutput(
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


def fig4(context: ExperimentContext) -> ExperimentOutput:
    """Makes Fig. 4: success, cross-entropy and precision error against ε on the standard model, raw and feasible."""
    names = [WASSER, PGD, *(name for name in context.config.attacks if name != "ensemble")]
    records = context.evaluation("standard", names).records
    return _curves(context, "fig4", "Fig. 4: attacks on the standard classifier", ["standard"], records)


def fig5(context: ExperimentContext) -> ExperimentOutput:
    """Makes Fig. 5: the paper's two attacks on PGD-based training and WasserTrain, without those in `leave_out`."""
    classifiers = [role for role in context.config.roles if role != "standard"]
    found = [record for name in classifiers for record in context.evaluation(name, [WASSER, PGD]).records]
    return _curves(context, "fig5", "Fig. 5: the paper's attacks on the trained classifiers", classifiers, found)


def beyond(context: ExperimentContext) -> ExperimentOutput:
    """Evaluates all classifiers under all attacks, with feasible examples only; the paper has no such table."""
    names = list(dict.fromkeys([WASSER, PGD, *context.config.attacks]))
    classifiers = [*context.config.roles, *context.config.others]
    reports = [context.evaluation(name, names) for name in classifiers]
    records = [record for report in reports for record in report.records]
    threat_model = ThreatModel.from_config(records[0].threat_model)
    figures.save_accuracy_curves(
        context.folder / "beyond.png",
        {report.name: report.minimal_radii for report in reports},
        threat_model=threat_model,
        title="Robust accuracy, the worst case over all attacks",
        max_radius=max(context.config.preset.radii),
        warnings=tables.flagged_lines(records),
    )
    rows = [_row(record) for record in records]
    return ExperimentOutput(
        name="beyond",
        title="Beyond the paper: robust accuracy of feasible examples",
        rows=rows,
        table=pivot(rows, ["classifier", "attack"], "epsilon", "robust_accuracy", ".2%") + _flagged(records),
        num_images=records[0].num_images,
        threat_model=_words(records[0]),
        settings=_settings(context, classifiers, records),
        pictures=["beyond.png"],
    )


EXPERIMENTS: dict[str, Callable[[ExperimentContext], ExperimentOutput]] = {
    "table1": table1,
    "fig1": fig1,
    "fig3": fig3,
    "fig4": fig4,
    "fig5": fig5,
    "beyond": beyond,
    "certified": certified,
}


def _curves(
    context: ExperimentContext, name: str, title: str, classifiers: Sequence[str], records: Sequence[Record]
) -> ExperimentOutput:
    """Draws and tabulates records of several attacks, or several classifiers."""
    lines: dict[str, list[Record]] = {}
    for record in records:
        if record.attack != WORST_CASE:
            label = record.attack if len(classifiers) == 1 else f"{record.attack} on {record.model}"
            lines.setdefault(label, []).append(record)
    drawings.save_raw_and_feasible(context.folder / f"{name}.png", lines, title=title)
    rows = [_row(record) for members in lines.values() for record in members]
    index = ["classifier", "attack"]
    shown = (
        ("success, raw", "raw_success", ".1%"),
        ("success, feasible", "success", ".1%"),
        ("mean cross-entropy, raw", "raw_cross_entropy", ".3g"),
        ("mean cross-entropy, feasible", "cross_entropy", ".3g"),
        ("mean precision error, raw", "raw_precision_error", ".1e"),
    )
    parts = [f"{heading}:\n\n{pivot(rows, index, 'epsilon', key, form)}" for heading, key, form in shown]
    return ExperimentOutput(
        name=name,
        title=title,
        rows=rows,
        table="\n".join(parts) + _flagged(records),
        num_images=records[0].num_images,
        threat_model=_words(records[0]),
        settings=_settings(context, classifiers, records),
        pictures=[f"{name}.png"],
    )


def _row(record: Record) -> dict[str, Any]:
    return {
        "classifier": record.model,
        "attack": record.attack,
        "epsilon": record.epsilon,
        "success": record.feasible.success_rate,
        "robust_accuracy": record.feasible.robust_accuracy,
        "cross_entropy": record.feasible.cross_entropy,
        "precision_error": record.feasible.precision_error_mean,
        "max_cost_ratio": record.feasible.max_cost_ratio,
        "feasible_share": record.feasible.feasible_share,
        "raw_success": record.raw.success_rate,
        "raw_cross_entropy": record.raw.cross_entropy,
        "raw_precision_error": record.raw.precision_error_mean,
        "raw_max_cost_ratio": record.raw.max_cost_ratio,
        "raw_max_pixel": record.raw.max_pixel,
        "raw_feasible_share": record.raw.feasible_share,
        "natural_accuracy": record.natural_accuracy,
        "mean_iterations": record.mean_iterations,
        "seconds": record.seconds,
    }


def _words(record: Record) -> str:
    return tables.threat_model_caption(record.threat_model)


def _flagged(records: Sequence[Record]) -> str:
    """Returns the warnings about flagged images, which follow the table of their numbers."""
    return "".join(f"\n{line}\n" for line in tables.flagged_lines(records))


def _settings(context: ExperimentContext, classifiers: Sequence[str], records: Sequence[Record]) -> dict[str, Any]:
    used = {record.attack: record.settings for record in records if record.settings}
    return {"attacks": used, "classifiers": _fingerprints(context, classifiers)}


def _fingerprints(context: ExperimentContext, classifiers: Sequence[str]) -> dict[str, str]:
    return {name: fingerprint.fingerprint(context.path(name)) for name in classifiers}


def _training(context: ExperimentContext, omega: float) -> dict[str, Any]:
    """Returns the settings that all trainings of Fig. 3 share, except ω, and the number of validation images."""
    metadata = storage.read_json(context.omega_run(omega) / run_folder.CONFIG)
    config = context.config
    validation = data.load(
        config.dataset, data_dir=config.data_dir, download=config.download, splits=("validation",)
    ).validation
    return {
        "training": metadata["config"],
        "threat_model_in_words": metadata["threat_model_in_words"],
        "validation_images": len(validation.labels),
    }
