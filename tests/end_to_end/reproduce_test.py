"""bin/reproduce.py as a user runs it."""

import csv
import json
import pathlib

import keras
import pytest

from wasser_tf import data, models

_ROOT = pathlib.Path(__file__).parents[2]
_TINY = """
--dataset=digits
--quick
--experiment=table1,fig1,fig4
--standard_epochs=1
--epochs=1
--iterations=2
--radii=0.1,0.3
--num_examples=12
--attack_iterations=10
--attacks=random_plan
"""


@pytest.mark.slow
def test_missing_classifiers_are_trained_and_existing_ones_used(run_binary, tmp_path):
    train = data.load("digits", splits=("train",)).train
    classifier = models.build("mlp", (8, 8, 1), 10, seed=0)
    classifier.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    classifier.fit(train.images, train.labels, epochs=5, verbose=0)
    classifier.save(tmp_path / "mlp.keras")
    (tmp_path / "tiny.flags").write_text(_TINY)
    arguments = [
        f"--flagfile={tmp_path / 'tiny.flags'}",
        f"--standard={tmp_path / 'mlp.keras'}",
        f"--pgd={tmp_path / 'mlp.keras'}",
        f"--output_dir={tmp_path / 'out'}",
        f"--publish_dir={tmp_path / 'docs'}",
    ]
    code, out, errors = run_binary("reproduce", *arguments)
    assert code == 0, errors
    assert out.count("Training ") == 1 and "Training wasser_train: 1 standard epochs, then 1 with mirror_ascent" in out
    assert "[6/6] standard, random_plan, ε = 0.3" in out
    places = (tmp_path / "out" / "outputs", tmp_path / "docs" / "digits")
    for place in places:
        names = {path.name for path in place.iterdir()} - {"table1.md", "fig1.md", "fig4.md"}
        assert names == {f"{name}.{kind}" for name in ("table1", "fig1", "fig4") for kind in ("json", "csv")} | {
            "fig1.png",
            "fig4.png",
        }
    table1, fig1, fig4 = (json.loads((places[1] / f"{name}.json").read_text()) for name in ("table1", "fig1", "fig4"))
    assert table1["num_images"] == 400 and all(row["natural_accuracy"] > 0.5 for row in table1["rows"])
    for made in (table1, fig1, fig4):
        assert made["dataset"] == "digits test" and made["seed"] == 0 and "commit" in made
        # Neither the folder of the test nor any other of the machine.
        assert made["command"].startswith("python bin/reproduce.py --flagfile=…/tiny.flags --standard=…/mlp.keras ")
        assert str(tmp_path) not in json.dumps(made)
    assert all(0 < row["linf_largest_change"] <= 0.2 + 1e-6 for row in fig1["rows"])
    assert all(0 <= row["wasserstein_cost"] <= 0.2 * (1 + 1e-5) for row in fig1["rows"])
    with open(places[1] / "fig4.csv", encoding="utf-8") as file:
        rows = {(row["attack"], row["epsilon"]): row for row in csv.DictReader(file)}
    assert len(rows) == 6 and all(float(row["feasible_share"]) == 1 for row in rows.values())
    assert float(rows["wasser_attack", "0.3"]["success"]) > float(rows["random_plan", "0.3"]["success"])
    page = (tmp_path / "docs" / "digits.md").read_text()
    assert "## Fig. 4: attacks on the standard classifier" in page and "](digits/fig4.png)" in page

    # Fig. 1 is always drawn anew.
    code, again, errors = run_binary("reproduce", *arguments, "--experiment=table1,fig4")
    assert code == 0, errors
    assert "Training " not in again and "fooled" not in again
    same = json.loads((places[1] / "fig4.json").read_text())
    assert same["rows"] == fig4["rows"]
