"""Train the bundled open model of the digits on public synthetic glyphs, and write its card.

    python scripts/pretrain_glyphs.py                   # about four minutes on one idle core

No record of any data set is read: neither scikit-learn's digits, which are the demo's private
records and test part, nor any other. How the glyphs are distorted, the architecture and the
training length were chosen on held-out fonts and on one public proxy, the MNIST test half
brought to the same 8 x 8 grid (the accuracy of a new head on its features, with and without
noise: ``proxy_glyphs.py``); MNIST was never trained on.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from collegium.core.digest import sha256_hex
from collegium.core.plan import ModelRef
from collegium.data.glyphs import glyph_set
from collegium.data.public import PublicSet
from collegium.models.evaluate import evaluate
from collegium.models.tasks import task
from collegium.models.vision import FEATURE_NORM, FEATURES, GlyphCNN

ASSETS = Path(__file__).resolve().parent.parent / "models" / "assets"
SOURCE = "fonts"
"""Printed digits only: the open model should know the task's world, not the sites' handwriting,
as a hospital's open model knows other people's images. The pen strokes stay unseen."""

BATCH = 256
LEARNING_RATE = 2e-3
SCALE = 20.0  # the largest logit in training: all features and directions have fixed lengths
SMOOTHING = 0.1
FLOOR = 0.03  # added to the spread within a class, as a share of the largest


def train(glyphs: int, epochs: int, seed: int) -> GlyphCNN:
    """Return the model trained for ``epochs`` passes, each over new glyphs."""
    torch.manual_seed(seed)
    model = GlyphCNN()
    embedding(model).bias.requires_grad_(False)  # not learned: it follows the mean of the features
    steps = epochs * math.ceil(glyphs / BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    began = time.monotonic()
    for epoch in range(epochs):
        public = glyph_set(glyphs, seed=seed * 1000 + epoch, source=SOURCE)
        x, y = torch.from_numpy(public.x), torch.from_numpy(np.asarray(public.y))
        total = 0.0
        for part in torch.randperm(glyphs).split(BATCH):
            optimizer.zero_grad()
            loss = loss_of(model.features(x[part]) @ directions(model).T, y[part])
            loss.backward()
            optimizer.step()
            schedule.step()
            centre(model, x[part], share=0.02)
            total += loss.item() * len(part)
        print(f"epoch {epoch + 1}/{epochs}: loss {total / glyphs:.4f}, "
              f"{time.monotonic() - began:.0f} s", flush=True)  # fmt: skip
    return finish(model, glyph_set(8000, seed=seed * 1000 + epochs, source=SOURCE))


def embedding(model: GlyphCNN) -> nn.Linear:
    """Return the layer that makes the features, before they are brought to one norm."""
    return cast("nn.Linear", model.body[-2])


def directions(model: GlyphCNN) -> torch.Tensor:
    """Return the head in training, one direction of fixed length per class: (classes, features)."""
    return SCALE / FEATURE_NORM * nn.functional.normalize(model.head.weight)


@torch.no_grad()
def centre(model: GlyphCNN, x: torch.Tensor, *, share: float) -> None:
    """Move the embedding's bias by ``share`` of the way that gives the glyphs a zero mean.

    A part common to all features teaches a new head nothing, yet spends its clipping norm.
    """
    before = model.body[:-1](model.preprocess(x))  # (batch, features), not yet of norm 1
    embedding(model).bias.sub_(share * before.mean(dim=0))


@torch.no_grad()
def finish(model: GlyphCNN, public: PublicSet) -> GlyphCNN:
    """Return the model with whitened features, and with class means as its own head.

    The embedding is turned so that the spread of the glyphs within a class is nearly the same in
    all directions (Fisher's discriminant with a floor): then a few noisy gradient steps of a new
    head see every pair of classes, not the most distant ones alone.
    """
    x, y = torch.from_numpy(public.x), np.asarray(public.y)
    centre(model, x, share=1.0)
    layer = embedding(model)
    before = model.body[:-1](model.preprocess(x)).double().numpy()  # (n, features)
    means = np.stack([before[y == digit].mean(axis=0) for digit in range(10)])
    values, vectors = np.linalg.eigh(np.cov((before - means[y]).T))
    turn = torch.from_numpy((vectors / np.sqrt(values + FLOOR * values[-1])) @ vectors.T)
    middle = torch.from_numpy(means.mean(axis=0))
    layer.weight.copy_(turn @ layer.weight.double())
    layer.bias.copy_(turn @ (layer.bias.double() - middle))
    features = model.features(x)
    centres = torch.stack([features[torch.from_numpy(y == digit)].mean(0) for digit in range(10)])
    model.head.weight.copy_(centres)
    model.head.weight.copy_(directions(model))
    model.head.bias.zero_()
    return model.eval()


def held_out(model: GlyphCNN) -> dict[str, float]:
    """Return the accuracy on glyphs that training never drew: new seeds, new fonts."""
    figures: dict[str, float] = {}
    digits = tuple(str(digit) for digit in range(10))
    ref = ModelRef(name="collegium:glyph-cnn", task="classification", classes=digits)
    for source in ("pen", "held-out-fonts"):
        public = glyph_set(4000, seed=999_999, source=source)
        labels = np.asarray(public.y)
        metrics = evaluate(model, task(ref), public.x, labels)
        figures[source] = round(metrics["accuracy"], 4)
    return figures


def write(model: GlyphCNN, out: Path, command: str, figures: dict[str, float]) -> None:
    """Write ``glyph-cnn.safetensors`` and its card ``glyph-cnn.json``."""
    weights = save({name: value.contiguous() for name, value in model.state_dict().items()})
    (out / "glyph-cnn.safetensors").write_bytes(weights)
    biases = [p for n, p in model.named_parameters() if n.endswith("bias") and n[:4] != "head"]
    values = {
        "name": "collegium:glyph-cnn",
        "license": "Apache-2.0",
        "task": "classification",
        "input_shape": [8, 8],
        "input_dtype": "float32",
        "classes": [str(digit) for digit in range(10)],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "body_biases": sum(bias.numel() for bias in biases),
        "head_inputs": FEATURES,
        "weights": sha256_hex(weights),
        "trained_on": "synthetic digits only: fonts bundled with matplotlib "
        "(DejaVu, STIX, Computer Modern), randomly distorted (data/glyphs.py)",
        "summary": "a small CNN with GroupNorm for 8 x 8 grey digits, values 0..16, whose "
        f"features have norm {FEATURE_NORM:g}",
        "chosen": "distortions, architecture, features and training length on held-out fonts and "
        "on the MNIST test half at 8 x 8 (scripts/proxy_glyphs.py), which was never trained on",
        "command": command,
        "held_out_accuracy": figures,
    }
    (out / "glyph-cnn.json").write_text(json.dumps(values, indent=2) + "\n")


def main() -> None:
    """Train, measure on held-out glyphs, write the asset."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--glyphs", type=int, default=60_000, help="new glyphs per epoch")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ASSETS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    np.seterr(all="raise", under="ignore")
    model = train(options.glyphs, options.epochs, options.seed)
    figures = held_out(model)
    print(f"held out: {figures}")
    command = (
        f"python scripts/pretrain_glyphs.py --glyphs {options.glyphs} --epochs {options.epochs} "
        f"--seed {options.seed}"
    )
    write(model, options.out, command, figures)


if __name__ == "__main__":
    main()
