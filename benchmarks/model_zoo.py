"""The open models on which readiness is tried: random weights, small inputs, nothing downloaded."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One model: how it is built, what it eats, and which names begin its last part."""

    name: str
    build: Callable[[], nn.Module]
    example: Callable[[int], Tensor]
    last: tuple[str, ...]
    needs: tuple[str, ...] = ()
    large: bool = False

    def missing(self) -> list[str]:
        """Return the packages that are not installed."""
        return [package for package in self.needs if find_spec(package) is None]

    def model(self) -> nn.Module:
        """Return the model with the same random weights every time, none of them constant."""
        torch.manual_seed(0)
        return unsettle(self.build(), self.example(8))

    def parts(self) -> tuple[str, ...]:
        """Return what is trained, one after the other; the ``rest`` of large models costs much."""
        return ("all", "last") if self.large else ("all", "last", "rest")

    def trained(self, model: nn.Module, part: str) -> list[str]:
        """Return the names that train: ``all`` that require a gradient, the ``last`` part of the
        model, or the ``rest``."""
        return [
            name
            for name, value in model.named_parameters()
            if value.requires_grad and part in {"all", self._part(name)}
        ]

    def _part(self, name: str) -> str:
        return "last" if name.startswith(self.last) else "rest"


def unsettle(model: nn.Module, example: Tensor) -> nn.Module:
    """Move what initialisers leave constant, and let BatchNorm see ``example`` as pre-training
    would: so no gradient is zero and no layer is idle."""
    with torch.no_grad():
        for value in model.parameters():
            if value.numel() > 1 and float(value.max() - value.min()) == 0.0:
                tiny = 0.0 < float(value.abs().max()) < 1e-3  # ConvNeXt's layer scales
                value.copy_(float(tiny or value.mean()) + 0.1 * torch.randn_like(value))
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 0.9
        if norms:
            model.train()(example)
    return model


class Logits(nn.Module):
    """A Hugging Face classifier as the engine wants it: tokens (n, length) in, logits out."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the (n, classes) logits; ``tokens`` may come as floats."""
        return self.body(input_ids=tokens.long()).logits


def _vision(name: str, size: int, last: tuple[str, ...], *, large: bool = False) -> Case:
    def build() -> nn.Module:
        from torchvision import models

        options: dict[str, Any] = {"image_size": size} if name.startswith("vit") else {}
        return getattr(models, name)(weights=None, num_classes=CLASSES, **options)

    def example(count: int) -> Tensor:
        return torch.randn(count, 3, size, size)

    return Case(name=name, build=build, example=example, last=last, large=large)


def _text(name: str, build: Callable[[], nn.Module], targets: list[str], last: str) -> list[Case]:
    def adapted() -> nn.Module:
        from peft import LoraConfig, get_peft_model

        options = LoraConfig(task_type="SEQ_CLS", r=8, target_modules=targets, lora_dropout=0.1)
        with warnings.catch_warnings():
            # peft 0.21 asks for a property that transformers 5.23 has renamed:
            # https://github.com/huggingface/peft/issues
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            return Logits(get_peft_model(build(), options))

    def example(count: int) -> Tensor:
        return torch.randint(1, 100, (count, 16))

    heads = ("body.classifier", "body.pre_classifier")
    return [
        Case(
            name=name,
            build=lambda: Logits(build()),
            example=example,
            last=(last, *heads),
            needs=("transformers",),
        ),
        Case(
            name=f"{name} + LoRA",
            build=adapted,
            example=example,
            last=("body.base_model.model.classifier", "body.base_model.model.pre_classifier"),
            needs=("transformers", "peft"),
        ),
    ]


def _bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(
            vocab_size=100,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            num_labels=CLASSES,
        )
    )


def _distilbert() -> nn.Module:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    return DistilBertForSequenceClassification(
        DistilBertConfig(
            vocab_size=100, dim=64, n_layers=2, n_heads=4, hidden_dim=128, num_labels=CLASSES
        )
    )


ZOO = (
    _vision("resnet18", 64, ("layer4.1.", "fc.")),
    _vision("mobilenet_v3_small", 64, ("features.12.", "classifier.")),
    _vision("efficientnet_b0", 64, ("features.8.", "classifier.")),
    _vision("squeezenet1_1", 64, ("features.12.", "classifier.")),
    _vision("convnext_tiny", 32, ("features.7.2.", "classifier."), large=True),
    _vision("resnet50", 64, ("layer4.2.", "fc."), large=True),
    _vision("swin_t", 32, ("features.7.1.", "norm.", "head."), large=True),
    _vision(
        "vit_b_16",
        32,
        ("encoder.layers.encoder_layer_11.", "encoder.ln.", "heads."),
        large=True,
    ),
    *_text("BERT", _bert, ["query", "value"], "body.bert.encoder.layer.1."),
    *_text("DistilBERT", _distilbert, ["q_lin", "v_lin"], "body.distilbert.transformer.layer.1."),
)
