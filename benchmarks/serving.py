"""Times the export, served predictions and many concurrent clients, on the loopback interface.

  python -m benchmarks.serving [--model=classifier.keras] [--requests=10000]

Without --model, an untrained LeNet for MNIST is served. The server is tests/serving/model_server.py, in a separate
process. Prints one measurement per line; the exit code is 1 if any request of the load test got a wrong answer.
"""

import argparse
import concurrent.futures
import contextlib
import functools
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

from wasser_tf import ThreatModel, models
from wasser_tf.serving.client import PROTOCOLS, RequestRefused, connect
from wasser_tf.serving.export import export_classifier
from wasser_tf.serving.robustness import RobustnessProbe

_CLIENTS = 16
_CORRUPT = np.array([b"\x89PNG\r\n\x1a\n" + bytes(30)], object)


def main() -> int:
    """Runs all measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a .keras file, a SavedModel's folder or a .npz")
    parser.add_argument("--build", default="lenet", help="architecture of the untrained model without --model")
    parser.add_argument("--requests", type=int, default=10_000, help="number of requests of the load test")
    arguments = parser.parse_args()
    if arguments.model:
        classifier = models.load_classifier(arguments.model)
    else:
        classifier = models.build(arguments.build, (28, 28, 1), 10, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        path = _export(classifier, pathlib.Path(folder, "plain"), None)
        path = _export(classifier, pathlib.Path(folder, "probed"), RobustnessProbe(threat_model=ThreatModel()))
        loaded = tf.saved_model.load(str(path))
        shape = tuple(loaded.signatures["serving_default"].structured_input_signature[1]["image"].shape[1:])
        images = np.random.default_rng(0).random((64, *shape), np.float32)
        command = [sys.executable, "-m", "tests.serving.model_server", str(path.parents[1])]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            over_grpc, over_rest = server.stdout.readline().split()
            addresses = {name: over_grpc if name == "grpc" else over_rest for name in PROTOCOLS}
            _latencies(loaded, addresses, images)
            errors = _load(addresses, images, arguments.requests)
            server.stdin.close()
    return 1 if errors else 0


def _export(classifier, folder, robustness):
    started = time.perf_counter()
    path = export_classifier(classifier, folder, "model", robustness=robustness).path
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    name = "with robustness" if robustness else "without robustness"
    print(f"export {name}: {time.perf_counter() - started:.1f} s, {size / 1e6:.2f} MB")
    return path


def _medians(requests, count):
    """Returns medians in ms of calls made in turns, so that other load on the machine affects all of them equally."""
    seconds = {name: [] for name in requests}
    for place in range(5 + count):
        for name, request in requests.items():
            started = time.perf_counter()
            request()
            if place >= 5:
                seconds[name].append(time.perf_counter() - started)
    return {name: 1000 * np.median(taken) for name, taken in seconds.items()}


def _latencies(loaded, addresses, images):
    """Prints median latencies, served and in-process (numpy to numpy), and the round trip of an empty message."""
    with grpc.insecure_channel(addresses["grpc"]) as channel:
        status = get_model_status_pb2.GetModelStatusRequest()
        status.model_spec.name = "model"
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        empty = _medians({"empty": lambda: stub.GetModelStatus(status)}, 300)["empty"]
        print(f"gRPC round trip without a model: {empty:.2f} ms")
    files = np.array([tf.io.encode_png(image).numpy() for image in np.round(255 * images).astype(np.uint8)], object)
    whole = {
        "serving_default": ("image", images, (1, 64)),
        "uint8": ("image", np.round(255 * images).astype(np.uint8), (64,)),
        "encoded": ("image_bytes", files, (1, 64)),
        "robustness": ("image", images, (1,)),
    }
    for signature, (key, arrays, sizes) in whole.items():
        function = loaded.signatures[signature]
        for size in sizes:
            batch = arrays[:size]

            def inside(function=function, key=key, batch=batch):
                return {name: value.numpy() for name, value in function(**{key: tf.constant(batch)}).items()}

            alone = _medians({"inside": inside}, 30)["inside"]
            calls = {"in-process": inside}
            with contextlib.ExitStack() as stack:
                for protocol, address in addresses.items():
                    client = stack.enter_context(connect(protocol, address, "model", timeout=60))
                    calls[protocol] = functools.partial(client.predict, {key: batch}, signature)
                taken = _medians(calls, 300 if size == 1 and signature != "robustness" else 30)
            what = f"{signature}, batch {size}"
            print(f"{what}: in-process {taken['in-process']:.2f} ms (without other calls between {alone:.2f} ms)")
            for protocol in addresses:
                print(f"{what}: {protocol} {taken[protocol]:.2f} ms, {taken[protocol] / taken['in-process']:.1f} ×")


def _load(addresses, images, requests):
    """Sends requests from many clients at once, one in five malformed, and returns the number of wrong answers."""
    with connect("grpc", addresses["grpc"], "model") as client:
        wanted = client.predict({"image": images})["logits"]
    each = requests // _CLIENTS

    def send(worker):
        wrong, seconds = 0, []
        protocol = PROTOCOLS[worker % len(PROTOCOLS)]
        with connect(protocol, addresses[protocol], "model") as client:
            client.signatures()
            for place in range(each):
                row = (worker + place) % len(images)
                image, malformed = images[row : row + 1], place % 5 == 4
                started = time.perf_counter()
                try:
                    if malformed and place % 2:
                        got = client.predict({"image_bytes": _CORRUPT}, "encoded")
                    else:
                        got = client.predict({"image": image + 1 if malformed else image})
                    wrong += malformed or not np.allclose(got["logits"][0], wanted[row], atol=1e-4)
                except RequestRefused:
                    wrong += not malformed
                except ConnectionError:
                    wrong += 1
                seconds.append(time.perf_counter() - started)
        return wrong, seconds

    started = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(_CLIENTS) as pool:
        answers = list(pool.map(send, range(_CLIENTS)))
    passed = time.perf_counter() - started
    wrong = sum(count for count, _ in answers)
    latencies = 1000 * np.concatenate([seconds for _, seconds in answers])
    p50, p99 = np.percentile(latencies, [50, 99])
    print(
        f"{each * _CLIENTS} requests from {_CLIENTS} clients, a fifth of them malformed: {wrong} wrong answers, "
        f"{each * _CLIENTS / passed:.0f} per second, p50 {p50:.1f} ms, p99 {p99:.1f} ms"
    )
    return wrong


if __name__ == "__main__":
    sys.exit(main())
