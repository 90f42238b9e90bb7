"""bin/train.py, bin/export.py, a server, bin/predict.py: as a user runs them, on the digits."""

import json

import pytest

from tests.serving.model_server import ModelServer


@pytest.fixture(scope="module")
def trained(run_binary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving") / "run"
    # Training and report attack batches of one size with as many iterations, and so share what they compile.
    tiny = """--model=mlp --standard_epochs=6 --epochs=2 --iterations=2 --learning_rate=0.01 --report_iterations=2
        --num_attack_examples=64 --radii=0.1"""
    code, _, errors = run_binary("train", *tiny.split(), f"--output_dir={folder}")
    assert code == 0, errors
    return folder


@pytest.mark.slow
def test_train_export_serve_predict(run_binary, trained, tmp_path):
    model, base = trained / "best.keras", tmp_path / "served"
    export = (f"--model={model}", "--name=digits", f"--base_dir={base}", "--robustness", "--robustness_rounds=2")
    code, out, errors = run_binary("export", *export)
    assert code == 0, errors
    assert f"{base / 'digits' / '1'}: serving_default" in out and str(base / "docker-compose.yaml") in out
    card = json.loads((base / "digits" / "1" / "model_card.json").read_text())
    assert card["dataset"] == "digits" and card["threat_model"]["epsilon"] == 0.1
    assert card["robustness_measured"][0]["num_images"] == 64 and card["training"]["model"] == "mlp"

    with ModelServer(base) as server:
        ask = ("--model=digits", "--dataset=digits", "--num_examples=100")
        code, out, errors = run_binary(
            "predict", f"--server={server.grpc}", *ask, f"--output={tmp_path / 'labels.csv'}"
        )
        assert code == 0, errors
        assert "100 images in 2 requests: p50" in out
        lines = (tmp_path / "labels.csv").read_text().splitlines()
        assert lines[0] == "image,label,class_id,probability,truth" and len(lines) == 101
        report = json.loads((trained / "report.json").read_text())
        assert report["records"][-1]["natural_accuracy"] > 0.8 and float(out.split()[1].rstrip("%")) > 80
        code, again, errors = run_binary(
            "predict", f"--server={server.rest}", "--protocol=rest_rows", "--signature=robustness",
            "--model=digits", "--dataset=digits", "--num_examples=4", "--timeout=60",
        )  # fmt: skip
        assert code == 0, errors
        assert again.startswith("image\tlabel\tclass_id\tmargin\tradius\tflagged\ttruth\n")
        code, _, errors = run_binary("predict", f"--server={server.grpc}", "--model=faces", "--dataset=digits")
        assert code == 1 and "has no model 'faces'" in errors and "Traceback" not in errors
        gone = server.grpc
    code, _, errors = run_binary("predict", f"--server={gone}", "--retries=1", *ask)
    assert code == 1 and f"No answer from {gone} after 2 attempts" in errors and "Traceback" not in errors


@pytest.mark.slow
def test_export_reports_bad_flags_in_a_sentence(run_binary, trained, tmp_path):
    model, base = trained / "best.keras", tmp_path / "served"
    for flags, message in [
        ((f"--model={tmp_path / 'nowhere.keras'}",), "There is no file"),
        ((f"--model={model}", "--version=0"), "version must be a whole number of at least 1"),
        ((f"--model={model}", "--image_shape=28,28,1"), "takes images of shape (8, 8, 1), not (28, 28, 1)"),
    ]:
        code, _, errors = run_binary("export", *flags, "--name=digits", f"--base_dir={base}")
        assert code == 1 and message in errors and "Traceback" not in errors
    code, _, errors = run_binary("export", f"--model={model}", "--version=v2", "--name=digits", f"--base_dir={base}")
    assert code != 0 and "v2" in errors and "Traceback" not in errors
    assert not base.exists()
