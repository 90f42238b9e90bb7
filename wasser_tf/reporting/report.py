"""Writes the report of an evaluation: report.json, results.csv, report.md and figures/."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from wasser_tf.attacks import Attack
from wasser_tf.data.selection import Selection
from wasser_tf.evaluation import metrics
from wasser_tf.evaluation.check import Check, gradient_masking
from wasser_tf.evaluation.examples import Examples
from wasser_tf.evaluation.fingerprint import array_digest, safe_name
from wasser_tf.evaluation.record import WORST_CASE, Record, make_record
from wasser_tf.evaluation.stored_examples import PICTURES
from wasser_tf.evaluation.verification import ExactCheck
from wasser_tf.reporting import figures, tables
from wasser_tf.reporting.bracket import Bracket, bracket_table, contradiction_note, save_bracket
from wasser_tf.reporting.certification import Certified
from wasser_tf.runtime import provenance, run_files, storage
from wasser_tf.runtime.formatting import percent
from wasser_tf.threat_model import ThreatModel

FIGURES = "figures"


class Pictures(NamedTuple):
    """A few examples to draw; the fields are arguments of `figures.save_examples`."""

    images: np.ndarray
    adversarial: np.ndarray
    labels: np.ndarray
    clean_predictions: np.ndarray
    adversarial_predictions: np.ndarray


@dataclasses.dataclass(kw_only=True)
class ModelReport:
    """The results of one model, filled radius by radius.

    Attributes:
      name: The name of the model.
      path: The path of the model.
      fingerprint: The hash of the model's files, see `fingerprint`.
      records: A record for each attack and radius.
      exact: The exact verifications, by attack and radius.
      checks: The sanity checks.
      minimal_radii: Upper bounds of the minimal radii, [n], see `worst_case.least_costs`.
      bisected: Whether the minimal radii were found by bisection. Otherwise they cluster just below the tested radii,
        and neither their median nor their histogram is shown.
      certified: The certificates, of the same images; None without a certification.
      pictures: Examples to draw, by radius.
      top5: The natural top-5 accuracy, of classifiers with more than 10 classes.
      robust_top5: For these, by attack and radius: the share of the examples whose class is among the 5 most probable.
      commits: The commits of the code that attacked the model, as far as they are known.
    """

    name: str
    path: str
    fingerprint: str = ""
    records: list[Record] = dataclasses.field(default_factory=list)
    exact: dict[tuple[str, float], ExactCheck] = dataclasses.field(default_factory=dict)
    checks: list[Check] = dataclasses.field(default_factory=list)
    minimal_radii: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    bisected: bool = False
    certified: Certified | None = None
    pictures: dict[float, Pictures] = dataclasses.field(default_factory=dict)
    top5: float | None = None
    robust_top5: dict[tuple[str, float], float] = dataclasses.field(default_factory=dict)
    commits: set[str] = dataclasses.field(default_factory=set)

    def add(
        self,
        label: str,
        attack: Attack,
        radius: float,
        dataset_name: str,
        examples: Examples,
        seconds: float,
        settings: dict[str, Any] | None = None,
    ) -> None:
        """Adds the record of an attack.

        Args:
          label: The name of the attack in the report.
          attack: The attack.
          radius: The radius.
          dataset_name: The name of the images.
          examples: The examples.
          seconds: Duration of the attack in seconds.
          settings: Replace the attack's settings in the record, if given.
        """
        record = make_record(
            attack,
            examples.result,
            examples.clean,
            radius=radius,
            model_name=self.name,
            dataset_name=dataset_name,
            seconds=seconds,
        )
        settings = record.settings if settings is None else settings
        self.records.append(dataclasses.replace(record, attack=label, settings=settings))

    def keep_pictures(self, radius: float, examples: Examples, classifier: Any) -> None:
        """Keeps the first `PICTURES` examples of a radius for drawing."""
        images, labels = examples.images[:PICTURES], examples.labels[:PICTURES]
        adversarial = examples.result.adversarial[:PICTURES]
        if not len(images):
            return
        predicted = metrics.predict_unchecked(classifier, adversarial, labels[: len(images)]).predicted
        labels = labels[: len(images)]
        self.pictures[radius] = Pictures(
            images, adversarial, labels, examples.clean.predicted[: len(images)], predicted
        )


def write_report(
    folder: pathlib.Path,
    config: dict[str, Any],
    threat_model: ThreatModel,
    images: Selection,
    reports: Sequence[ModelReport],
) -> None:
    """Writes report.json, report.md, results.csv and the figures, replacing existing ones.

    Args:
      folder: The folder of the evaluation.
      config: The configuration of the evaluation, as plain Python values.
      threat_model: The ball; its epsilon is ignored.
      images: The images.
      reports: The results of each model.

    Raises:
      OSError: A file cannot be written.
    """
    records = [record for model in reports for record in model.records]
    drawn = _draw(folder / FIGURES, threat_model, images, reports)
    storage.write_text(folder / run_files.RESULTS, tables.to_csv(records))
    storage.write_text(folder / run_files.REPORT_TEXT, _markdown(config, threat_model, images, reports, drawn))
    values = {
        "config": config,
        "commit": provenance.commit(),
        "command": provenance.command(),
        "threat_model_in_words": tables.threat_model_caption(threat_model.get_config()),
        "images": images.name,
        "images_digest": array_digest(images.images, images.labels),
        "num_images": len(images.labels),
        "records": [record.to_json() for record in records],
        "models": {model.name: _to_json(model) for model in reports},
    }
    # Written last: if it exists, the report is complete.
    run_files.write_document(folder / run_files.REPORT, run_files.Schema.EVALUATION_REPORT, values)


def _to_json(model: ModelReport) -> dict[str, Any]:
    radii = model.minimal_radii
    return {
        "path": model.path,
        "fingerprint": model.fingerprint,
        "exact": [
            {"attack": attack, "epsilon": epsilon, **dataclasses.asdict(check)}
            for (attack, epsilon), check in model.exact.items()
        ],
        "sanity": [dataclasses.asdict(check) for check in model.checks],
        "gradient_masking": gradient_masking(model.checks),
        "attacked_at": sorted(model.commits),
        "minimal_radius_median": _median(radii) if model.bisected else None,
        "minimal_radius": [float(radius) for radius in radii],
        **({} if model.top5 is None else {"natural_top5_accuracy": model.top5}),
        **({} if not model.robust_top5 else {"robust_top5_accuracy": _top5_json(model)}),
        **({} if model.certified is None else {"certified": model.certified.to_json()}),
    }


def _top5_json(model: ModelReport) -> list[dict[str, Any]]:
    return [
        {"attack": attack, "epsilon": epsilon, "accuracy": share}
        for (attack, epsilon), share in model.robust_top5.items()
    ]


def _draw(
    folder: pathlib.Path, threat_model: ThreatModel, images: Selection, reports: Sequence[ModelReport]
) -> dict[str, str]:
    """Draws all figures that the results allow; returns their paths relative to the report, by caption."""
    drawn: dict[str, str] = {}

    def place(caption: str, name: str) -> pathlib.Path:
        drawn[caption] = f"{folder.name}/{name}.png"
        return folder / f"{name}.png"

    # The last record is the worst case over all attacks, or the only attack.
    strongest = reports[0].records[-1].attack
    strongest = "worst case over attacks" if strongest == WORST_CASE else strongest
    radii = {model.name: model.minimal_radii for model in reports}
    largest = max(record.epsilon for model in reports for record in model.records)
    for model in reports:
        if all(record.attack == WORST_CASE for record in model.records):
            continue
        path = place(f"{model.name}: each attack against ε", f"panels_{safe_name(model.name)}")
        figures.save_panels(path, model.records, title=f"{model.name} on {images.name}")
    curves = {}
    for model in reports:
        last = {record.epsilon: record for record in model.records}
        curves[model.name] = (
            [0.0, *last],
            [1 - model.records[0].natural_accuracy, *(record.feasible.success_rate for record in last.values())],
        )
    shared: dict[str, Any] = {
        "threat_model": threat_model,
        "warnings": [line for model in reports for line in _named_warnings(model)],
    }
    path = place(f"Success: {strongest}", "success")
    figures.save_success_curves(
        path, curves, num_images=len(images.labels), title=f"Success on {images.name}: {strongest}", **shared
    )
    if all(model.bisected for model in reports):
        path = place("Minimal radii", "minimal_radius")
        title = f"Minimal radii on {images.name}: the least cost that fooled"
        figures.save_radius_histogram(path, radii, title=title, **shared)
    path = place("Robust accuracy", "robust_accuracy")
    figures.save_accuracy_curves(
        path, radii, title=f"Robust accuracy on {images.name}", max_radius=largest or None, **shared
    )
    if brackets := _brackets(reports):
        path = place("Certified and not fooled", "bracket")
        title = f"Certified and not fooled on {images.name}"
        save_bracket(path, brackets, title=title, max_radius=largest or None, **shared)
    if images.images.shape[-1] in (1, 3):
        for model in reports:
            for radius, pictures in model.pictures.items():
                caption = f"{model.name} at ε = {radius:g}: {strongest}"
                figures.save_examples(
                    place(caption, f"examples_{safe_name(model.name)}_{radius:g}"),
                    *pictures,
                    threat_model=threat_model.with_epsilon(radius),
                    title=caption,
                    class_names=images.class_names,
                )
    return drawn


def _markdown(
    config: dict[str, Any],
    threat_model: ThreatModel,
    images: Selection,
    reports: Sequence[ModelReport],
    drawn: dict[str, str],
) -> str:
    sentence = tables.threat_model_caption(threat_model.get_config(), len(images.labels))
    parts = [
        f"# Evaluation on {images.name}\n\n{sentence}\n"
        "Every example is feasible; raw examples are those of the attack before rounding.\n"
    ]
    if config["skip_fooled"]:
        parts.append(
            f"Attacked by {', then '.join(config['attacks'])}, in order of the radii, each only on images that none "
            "before had fooled. Therefore no attack has its own row, and losses are those of the first success.\n"
        )
    for model in reports:
        parts.append(f"## {model.name}\n\n{overview(model)}")
        if model.bisected:
            parts.append(_minimal_radius_line(model.minimal_radii))
        if model.checks:
            parts.append(f"### Sanity checks\n\n{_sanity_table(model.checks)}")
        if model.exact:
            parts.append(f"### Exact transport\n\n{_exact_table(model)}")
    if brackets := _brackets(reports):
        methods = [f"{model.name}: {model.certified.method}" for model in reports if model.certified is not None]
        radii = sorted({record.epsilon for model in reports for record in model.records})
        parts.append(f"## Bracket\n\n{_bracket_words(brackets, methods)}\n\n{bracket_table(brackets, radii)}")
    parts.append(f"## All scores\n\n{tables.to_markdown([record for model in reports for record in model.records])}")
    parts.append("## Pictures\n\n" + "\n\n".join(f"![{caption}]({path})" for caption, path in drawn.items()) + "\n")
    return "\n".join(parts)


def _brackets(reports: Sequence[ModelReport]) -> dict[str, Bracket]:
    """Returns the radii from both sides of those classifiers that a certification was given of."""
    return {
        model.name: Bracket(model.certified.radius, model.minimal_radii)
        for model in reports
        if model.certified is not None
    }


def _bracket_words(brackets: dict[str, Bracket], methods: Sequence[str]) -> str:
    words = "Share of images certified at ε, and share that no attack above fooled: robust accuracy lies between them."
    words += " Method of certification: " + "; ".join(methods) + "."
    return f"{words}\n\n{note}" if (note := contradiction_note(brackets)) else words


def overview(model: ModelReport) -> str:
    """Returns a model's accuracies as text for the terminal and the report.

    Args:
      model: The results of the model.

    Returns:
      The natural accuracy, and a Markdown table of robust accuracies with a row per attack and a column per radius.
    """
    labels = list(dict.fromkeys(record.attack for record in model.records))
    radii = list(dict.fromkeys(record.epsilon for record in model.records))
    cells = {(record.attack, record.epsilon): record.feasible.robust_accuracy for record in model.records}
    natural = model.records[0].natural_accuracy
    rows = [[label, *(percent(cells[label, radius]) for radius in radii)] for label in labels]
    header = ["robust accuracy", *(f"ε = {radius:g}" for radius in radii)]
    warnings = "".join(f"\n{line}\n" for line in [*tables.flagged_lines(model.records), *_warnings(model.checks)])
    top5 = "" if model.top5 is None else f" (top 5: {percent(model.top5)})"
    table = tables.markdown_table(header, rows)
    if model.robust_top5:
        labels = list(dict.fromkeys(attack for attack, _ in model.robust_top5))
        rows = [[label, *(percent(model.robust_top5[label, radius]) for radius in radii)] for label in labels]
        header = ["robust top-5 accuracy", *header[1:]]
        # The attacks maximise the loss; they do not aim at the fifth class.
        table += f"\n{tables.markdown_table(header, rows)}\nThe attacks aim at the first class, not at the fifth.\n"
    return f"Natural accuracy {percent(natural)}{top5}.\n\n{table}{warnings}"


def _minimal_radius_line(radii: np.ndarray) -> str:
    never = int(np.sum(~np.isfinite(radii)))
    words = "Minimal radius over all attacks and radii above"
    median = _median(radii)
    middle = f"median {median:.4g}" if np.isfinite(median) else "median beyond all radii"
    return f"{words}: {middle}; {never} of {len(radii)} images never fooled.\n"


def _sanity_table(checks: Sequence[Check]) -> str:
    states = {True: "pass", False: "**FAIL**", None: "–"}
    rows = [[check.name, states[check.passed], check.measured, check.needed] for check in checks]
    warnings = _warnings(checks)
    verdict = " ".join(warnings if gradient_masking(list(checks)) else ["No sign of gradient masking.", *warnings])
    return f"{tables.markdown_table(['check', 'result', 'measured', 'needed'], rows, text_columns=4)}\n{verdict}\n"


def _warnings(checks: Sequence[Check]) -> list[str]:
    """Returns what failed checks mean for the robust accuracy; it is shown beside that."""
    masked = gradient_masking(list(checks))
    weak = [check.name for check in checks if check.passed is False and not check.masking]
    lines = []
    if masked:
        lines.append(f"**Gradient masking is likely ({', '.join(masked)}): do not trust the robust accuracy.**")
    if weak:
        lines.append(f"**The attack is not at its strongest ({', '.join(weak)}): the robust accuracy may be lower.**")
    return lines


def _named_warnings(model: ModelReport) -> list[str]:
    """Returns the warnings of a model for captions of several models."""
    checks = (f"{model.name}: {line.strip('*')}" for line in _warnings(model.checks))
    return [*tables.flagged_lines(model.records), *checks]


def _exact_table(model: ModelReport) -> str:
    rows = [
        [
            attack,
            f"{epsilon:g}",
            f"{check.num_images}",
            f"{check.max_ratio:.6f}",
            f"{check.max_excess:.1e}",
            "yes" if check.within_radius and check.below_cost else "**NO**",
        ]
        for (attack, epsilon), check in model.exact.items()
    ]
    header = ["attack", "ε", "images", "max exact distance / ε", "max exact − cost", "feasible"]
    return tables.markdown_table(header, rows)


def _median(radii: np.ndarray) -> float:
    # An element of the sample, never a mean of two, because one of the two may be infinite.
    return float(np.quantile(radii, 0.5, method="inverted_cdf"))
