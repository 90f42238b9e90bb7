import pytest

from wasser_tf.paper import experiment_output, published_numbers, results_page
from wasser_tf.paper.experiment_output import ExperimentOutput
from wasser_tf.publishing import leaderboard


def _row(attack, epsilon, success, raw_success, loss, precision, classifier="standard"):
    return {
        "classifier": classifier,
        "attack": attack,
        "epsilon": epsilon,
        "success": success,
        "raw_success": raw_success,
        "cross_entropy": loss,
        "raw_cross_entropy": 2 * loss,
        "raw_precision_error": precision,
    }


_FIG4 = [
    _row("wasser_attack", 0.1, 0.6, 0.7, 6.0, 1e-5),
    # Once all are fooled and later not: that does not count.
    _row("wasser_attack", 0.3, 0.9, 1.0, 30.0, 1e-5),
    _row("wasser_attack", 0.5, 1.0, 0.99, 40.0, 2e-5),
    _row("wasser_attack", 0.9, 1.0, 1.0, 60.0, 1e-5),
    _row("projected_sinkhorn", 0.1, 0.2, 0.3, 2.0, 1e-3),
    _row("projected_sinkhorn", 0.3, 0.4, 0.5, 5.0, 1e-3),
    _row("projected_sinkhorn", 0.5, 0.5, 0.6, 8.0, 1e-3),
    _row("projected_sinkhorn", 0.9, 0.7, 0.75, 15.0, 1e-2),
]
_FIG5 = [
    _row("wasser_attack", 0.5, 0.95, 0.97, 1.0, 1e-5, "pgd"),
    _row("wasser_attack", 0.5, 0.40, 0.45, 1.0, 1e-5, "wasser_train"),
]
_TABLE1 = [{"classifier": "standard", "natural_accuracy": 0.9889}, {"classifier": "mine", "natural_accuracy": 0.5}]


def test_comparison_of_the_papers_numbers_with_ours():
    outputs = {"table1": {"rows": _TABLE1}, "fig4": {"rows": _FIG4}, "fig5": {"rows": _FIG5}}
    assert published_numbers.lines("mnist", outputs) == [
        ("Table 1, natural accuracy, standard", "98.90 %", "98.89 %", ""),
        ("Fig. 4, 100 % success of wasser_attack on standard, from ε =", "0.9", "0.9", "0.5"),
        (
            "Fig. 4, 100 % success of projected_sinkhorn on standard, from ε =",
            "1.4",
            "not by 0.9 (75.00 %)",
            "not by 0.9 (70.00 %)",
        ),
        ("Fig. 4, cross-entropy, wasser_attack / projected_sinkhorn", "about 3", "3 … 6", "3 … 6"),
        ("Fig. 4, precision error, wasser_attack / projected_sinkhorn", "about 1/100", "0.001 … 0.02", ""),
        ("Fig. 5, success of wasser_attack on pgd at ε = 0.5", "91.00 %", "97.00 %", "95.00 %"),
        ("Fig. 5, success of wasser_attack on wasser_train at ε = 0.5", "69.00 %", "45.00 %", "40.00 %"),
    ]
    assert published_numbers.lines("cifar10", {}) == []


def _output(name, rows, **changes):
    fields = {
        "title": "Fig. 4: attacks",
        "table": experiment_output.pivot(rows, ["attack"], "epsilon", "success", ".0%"),
        "num_images": 1000,
        "threat_model": "A ball",
        "settings": {},
        "pictures": ["fig4.png"],
    }
    return ExperimentOutput(name=name, rows=rows, **{**fields, **changes})


def test_an_output_names_its_origin(tmp_path):
    experiment_output.write_output(tmp_path, _output("fig4", _FIG4), dataset="mnist", seed=3)
    text = (tmp_path / "fig4.md").read_text()
    assert "| wasser_attack      |     60% |     90% |    100% |    100% |" in text
    assert "1,000 images of mnist test, seed 3, commit " in text and "A ball. Numbers: [fig4.csv](fig4.csv)" in text
    assert "![Fig. 4: attacks](fig4.png)" in text and "```bash\npython " in text
    experiment_output.write_output(tmp_path, _output("fig3", _FIG4, split="validation"), dataset="mnist", seed=3)
    assert "1,000 images of mnist validation, seed 3" in (tmp_path / "fig3.md").read_text()
    header, first, *_ = (tmp_path / "fig4.csv").read_text().splitlines()
    assert header.startswith("classifier,attack,epsilon,") and first.startswith("standard,wasser_attack,0.1,0.6,")


def test_the_results_page_is_rendered_from_stored_outputs(tmp_path):
    with pytest.raises(ValueError, match="contains no outputs"):
        results_page.write_results_page(tmp_path, "mnist")
    experiment_output.write_output(tmp_path / "mnist", _output("fig4", _FIG4), dataset="mnist", seed=0)
    (tmp_path / "mnist" / "notes.md").write_text("Because.\n")
    text = results_page.write_results_page(tmp_path, "mnist").read_text()
    assert "## Comparison" in text and "not by 0.9 (75.00 %)" in text
    assert "## Differences\n\nBecause.\n" in text
    assert "## Fig. 4: attacks" in text and "](mnist/fig4.png)" in text and "strongest ensemble" not in text
    leaderboard_entry = {
        "name": "mine",
        "description": "",
        "dataset": "mnist test",
        "num_images": 10_000,
        "threat_model": {"p": 1.0},
        "attacks": {"ensemble": {"iterations": 100}},
        "natural_accuracy": 0.98,
        "robust_accuracy": {"0.5": 0.5},
        "num_weights": 1,
        "commit": None,
    }
    leaderboard.storage.write_json(tmp_path / "leaderboard" / "mnist" / "ball" / "mine.json", leaderboard_entry)
    text = results_page.write_results_page(tmp_path, "mnist").read_text()
    assert "## Under the strongest ensemble" in text and "| mine " in text and "unknown" in text
    # A dataset that the paper does not use has no comparison.
    experiment_output.write_output(tmp_path / "digits", _output("fig4", _FIG4), dataset="digits", seed=0)
    assert "Comparison" not in results_page.write_results_page(tmp_path, "digits").read_text()


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
