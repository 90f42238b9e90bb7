"""The run of bin/predict.py on all kinds of files and on a dataset."""

import csv

import numpy as np
import pytest

from wasser_tf.data.selection import ImageSource
from wasser_tf.runs import predict
from wasser_tf.runs.predict import PredictRun
from wasser_tf.serving.client import RestClient


def test_files_of_every_kind_give_the_same_labels(server, images, files, tmp_path):
    paths = []
    for place, file in enumerate(files):
        paths.append(str(tmp_path / f"{place}.png"))
        (tmp_path / f"{place}.png").write_bytes(file)
    np.save(tmp_path / "floats.npy", images)
    np.save(tmp_path / "integers.npy", np.round(images * 255).astype(np.uint8))
    paths += [str(tmp_path / "floats.npy"), str(tmp_path / "integers.npy")]
    done = predict.run_predict(PredictRun(server=server.grpc, model="digits", images=paths, batch_size=3, timeout=60))
    assert len(done.seconds) == 9 and done.names[0] == paths[0] and done.names[8] == f"{paths[8]}[0]"
    assert done.outputs["label"].reshape(3, 8).tolist() == [done.outputs["label"][:8].tolist()] * 3
    predict.save_predictions(done, str(tmp_path / "labels.csv"))
    with open(tmp_path / "labels.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["label"] for line in lines] == done.outputs["label"].tolist()
    assert "24 images in 9 requests: p50" in done.summary() and done.accuracy is None


def test_images_of_8_bits_go_over_rest_as_png_and_are_answered_alike(server, images, tmp_path, monkeypatch):
    eight_bits = np.round(images * 255).astype(np.uint8)
    np.save(tmp_path / "integers.npy", eight_bits)
    np.save(tmp_path / "floats.npy", eight_bits / np.float32(255))
    np.save(tmp_path / "finer.npy", eight_bits * np.float32(0.9) / np.float32(255))
    np.save(tmp_path / "larger.npy", np.pad(eight_bits, [(0, 0), (1, 1), (1, 1), (0, 0)]))
    sent = []
    ask = RestClient.predict

    def spy(self, inputs, signature="serving_default"):
        sent.append(signature)
        return ask(self, inputs, signature)

    monkeypatch.setattr(RestClient, "predict", spy)

    def answers(name, address, protocol):
        options = {"server": address, "protocol": protocol, "images": [str(tmp_path / f"{name}.npy")], "timeout": 60}
        return predict.run_predict(PredictRun(model="digits", **options)).outputs["logits"]

    for name in ("integers", "floats", "finer"):
        there = answers(name, server.rest, "rest_rows")
        np.testing.assert_allclose(there, answers(name, server.grpc, "grpc"), atol=1e-5)
    assert sent == ["encoded", "encoded", "serving_default"]
    with pytest.raises(ValueError, match="image must be uint8"):
        answers("larger", server.rest, "rest_rows")


def test_a_dataset_and_the_robustness_signature(server, classifier):
    source = ImageSource(num_examples=3)
    options = {"server": server.rest, "model": "digits", "protocol": "rest_columns", "source": source, "timeout": 60}
    done = predict.run_predict(PredictRun(**options, signature="robustness"))
    heading, rows = done.rows()
    assert heading == ["image", "label", "class_id", "margin", "radius", "flagged", "truth"] and len(rows) == 3
    selection = source.load()
    predicted = classifier(selection.images, training=False).numpy().argmax(axis=1)
    assert done.outputs["class_id"].tolist() == predicted.tolist()
    assert done.accuracy == np.mean(predicted == selection.labels) and done.truth.tolist() == selection.labels.tolist()


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "either files of images or a dataset"),
        ({"images": ["a.png"], "source": ImageSource()}, "either files of images or a dataset"),
        ({"images": ["a.png"], "batch_size": 0}, "batch_size must be"),
        ({"images": ["a.png"], "protocol": "soap"}, "protocol must be one of"),
        ({"images": ["a.gif"]}, "Images must be .png, .jpg or .npy files, got a.gif"),
        ({"images": ["nowhere.png"]}, "nowhere.png cannot be read"),
        ({"images": ["nowhere.npy"]}, "nowhere.npy cannot be read"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        predict.run_predict(PredictRun(server="localhost:1", model="m", **options))
