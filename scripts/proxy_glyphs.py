"""Choose the digits demo's defaults on a public proxy, never on the demo's own records.

    python scripts/proxy_glyphs.py FOLDER              # FOLDER holds the two MNIST t10k idx files

The proxy is the MNIST test half, brought to the grid of the demo's digits (ink box, 32 x 32
bitmap, 4 x 4 block counts: 8 x 8 values 0..16). A new head is trained on 1,294 of its records
over four sites with one noisy step per round, as the plan would, and tested on 2,000 others.
With one step per round the sites' sum does not depend on how records are split, so that the
simulation pools the records and adds the noise of four sites.
"""

from __future__ import annotations

import argparse
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from collegium.core.digest import file_digest
from collegium.core.plan import ModelRef
from collegium.models.evaluate import evaluate
from collegium.models.registry import open_model
from collegium.models.tasks import task

FILES = {
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
SITES, TRAIN, TEST, SPLITS, CLIP = 4, 1294, 2000, 8, 1.0
Floats = NDArray[np.floating]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One plan: ``sigmas`` are the noise multipliers at epsilon 3 and 1, delta 1e-4 (PLD)."""

    rounds: int
    rate: float
    sigmas: tuple[float, float]


SETTINGS = (
    Setting(rounds=60, rate=0.3, sigmas=(3.04, 7.60)),
    Setting(rounds=60, rate=0.5, sigmas=(4.90, 12.47)),
    Setting(rounds=100, rate=0.5, sigmas=(6.24, 16.05)),
    Setting(rounds=30, rate=0.5, sigmas=(3.53, 8.91)),
)


def proxy(folder: Path) -> tuple[NDArray[np.float32], Labels]:
    """Return the MNIST test half as (10000, 8, 8) values 0..16 and (10000,) labels."""
    raw: list[bytes] = []
    for name, digest in FILES.items():
        if file_digest(folder / name) != f"sha256:{digest}":
            raise SystemExit(f"{name}: not the bytes of the MNIST test half")
        raw.append(gzip.decompress((folder / name).read_bytes()))
    images = np.frombuffer(raw[0], np.uint8, offset=16).reshape(-1, 28, 28)
    labels = np.frombuffer(raw[1], np.uint8, offset=8).astype(np.int64)
    return np.stack([_blocks(image) for image in images]), labels


def _blocks(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    rows, columns = np.nonzero(image > 64)
    box = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    height, width = (max(1, round(side * 32 / max(box.shape))) for side in box.shape)
    scaled = np.asarray(Image.fromarray(box).resize((width, height), Image.Resampling.BILINEAR))
    bitmap = np.zeros((32, 32), dtype=np.float32)
    top, left = (32 - height) // 2, (32 - width) // 2
    bitmap[top : top + height, left : left + width] = scaled > 127
    return bitmap.reshape(8, 4, 8, 4).sum(axis=(1, 3))


def noisy_head(
    x: Floats, y: Labels, setting: Setting, sigma: float, rate: float, *, seed: int
) -> Floats:
    """Return the (10, features + 1) head that DP-SGD finds: the mean of the last half of rounds.

    Abadi et al. 2016, algorithm 1, with Poisson sampling and the normaliser rate * records.
    """
    rng = np.random.default_rng(seed)
    head = np.zeros((10, x.shape[1]))
    kept: list[Floats] = []
    normaliser = setting.rate * len(x)
    noise = np.sqrt(SITES) * sigma * CLIP / normaliser
    for _ in range(setting.rounds):
        take = rng.random(len(x)) < setting.rate
        logits = x[take] @ head.T
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        error = np.eye(10)[y[take]] - powers / powers.sum(axis=1, keepdims=True)
        norms = np.linalg.norm(error, axis=1) * np.linalg.norm(x[take], axis=1)
        error *= np.minimum(1, CLIP / np.maximum(norms, 1e-9))[:, None]
        step = error.T @ x[take] / normaliser + noise * rng.standard_normal(head.shape)
        head = head + rate * step
        kept.append(head)
    return np.mean(kept[setting.rounds // 2 :], axis=0)


def accuracies(x: Floats, y: Labels, setting: Setting, sigma: float, rate: float) -> Floats:
    """Return the test accuracy of a new head for each of the fixed splits: (SPLITS,)."""
    found: list[float] = []
    for split in range(SPLITS):
        order = np.random.default_rng(1000 + split).permutation(len(x))
        train, test = order[:TRAIN], order[TRAIN : TRAIN + TEST]
        head = noisy_head(x[train], y[train], setting, sigma, rate, seed=split)
        found.append(float(((x[test] @ head.T).argmax(axis=1) == y[test]).mean()))
    return np.array(found)


def main() -> None:
    """Print the open model untouched, then one row per setting and server learning rate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    torch.set_num_threads(1)
    images, labels = proxy(parser.parse_args().folder)
    classes = tuple(str(digit) for digit in range(10))
    ref = ModelRef(name="collegium:glyph-cnn", task="classification", classes=classes)
    model = open_model(ref)
    untouched = evaluate(model, task(ref), images, labels)["accuracy"]
    print(f"open model untouched: {untouched:.4f} of {len(labels)}")
    trunk = torch.nn.Sequential(model.get_submodule("preprocess"), model.get_submodule("body"))
    with torch.no_grad():
        features = trunk(torch.from_numpy(images))
    x = np.concatenate([features.numpy(), np.ones((len(images), 1))], axis=1)
    print("rounds rate  lr   epsilon 3: median min   no noise   epsilon 1: median min")
    for setting in SETTINGS:
        for rate in (2.0, 4.0, 8.0):
            three, one, none = (
                accuracies(x, labels, setting, sigma, rate) for sigma in (*setting.sigmas, 0.0)
            )
            print(
                f"{setting.rounds:6d} {setting.rate:4.1f} {rate:3.0f}   "
                f"{np.median(three):.3f} {three.min():.3f}   {np.median(none):.3f}   "
                f"{np.median(one):.3f} {one.min():.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
