"""Entries in the format of RobustBench, and its way to load a model."""

import json
import pathlib

import pytest

from wasser_tf.bridges.robustbench import load_model, model_info, write_model_info
from wasser_tf.publishing.leaderboard import entries

RESULTS = pathlib.Path(__file__).parents[2] / "docs" / "results"
# Of RobustBench's own model_info files.
FIELDS = {
    "link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture", "eps",
    "clean_acc", "reported", "autoattack_acc",
}  # fmt: skip


def test_every_entry_of_the_leaderboard_is_written(tmp_path):
    written = write_model_info(RESULTS, tmp_path)
    found = entries(RESULTS)
    assert len(written) == len(found) > 5
    for entry in found:
        dataset = entry["dataset"].split()[0]
        info = json.loads((tmp_path / dataset / "Wasserstein" / f"{entry['name']}.json").read_text())
        assert set(info) >= FIELDS and info["additional_data"] is False
        assert float(info["clean_acc"]) == pytest.approx(100 * entry["natural_accuracy"], abs=0.005)
        assert float(info["external"]) == pytest.approx(100 * entry["robust_accuracy"][info["eps"]], abs=0.005)


def test_a_radius_that_was_not_evaluated_is_refused():
    entry = entries(RESULTS)[0]
    with pytest.raises(ValueError, match="has no robust accuracy at ε = 77, only at 0"):
        model_info(entry, 77.0)


def test_models_are_loaded_by_name_dataset_and_threat_model(tmp_path):
    assert load_model("mnist_wassertrain", tmp_path, "mnist", "Wasserstein").input_shape == (None, 28, 28, 1)
    with pytest.raises(ValueError, match="classifies mnist, got dataset='cifar10': give dataset='mnist'"):
        load_model("mnist_wassertrain")
    with pytest.raises(ValueError, match="threat_model must be 'Wasserstein', got 'Linf'"):
        load_model("mnist_wassertrain", dataset="mnist", threat_model="Linf")
    with pytest.raises(ValueError, match="No pretrained classifier is called 'Nobody2020'"):
        load_model("Nobody2020")
