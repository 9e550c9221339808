"""Which open model is fine-tuned, what it reads, what it learns to answer, what of it trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from . import forms
from .fields import about

Bounds = tuple[float, float]
Task = str
"""One of ``TASKS``, or ``plugin:NAME``."""
TASKS = ("classification", "multilabel", "regression", "survival", "segmentation")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """Which open model is fine-tuned, for which task, and what of it trains.

    A tabular record holds the features of ``bounds``, in this order, as raw numbers (NaN where
    one is missing), then those of ``categories`` as indices into their lists (-1: another one);
    ``bounds`` maps each to its public (lowest, highest) value, and inputs are clipped to it and
    scaled to [-1, 1]. An image has the shape ``image``, a text ``options["tokens"]`` numbers.
    """

    name: str = field(
        metadata=about(
            "The open model that is fine-tuned",
            fault=forms.model_fault,
            form="FAMILY:NAME with a family of collegium, torchvision, timm, hf, tabular, text, "
            'segmentation, cifar or plugin, like "collegium:glyph-cnn"',
        )
    )
    weights: str | None = field(
        default=None,
        metadata=about(
            "Digest of the open weights; optional for a bundled model",
            fault=forms.digest_fault,
            form='"sha256:" and 64 hexadecimal digits',
        ),
    )
    hub: bool = field(
        default=False,
        metadata=about(
            "Whether weights that are not here may be fetched from the model's public hub; they "
            "must have the digest in weights all the same"
        ),
    )
    task: Task = field(
        metadata=about("What the model learns to answer", choices=TASKS, plugins=True)
    )
    classes: tuple[str, ...] = field(
        default=(),
        metadata=about(
            "Names of the classes, in label order; none for regression and survival",
            form='a list of texts, like ["benign", "malignant"]',
        ),
    )
    trainable: str = field(
        default="head",
        metadata=about(
            "What of the model trains, and so all that leaves a site",
            fault=forms.trainable_fault,
            form='"head", "bias", "norm", "lora:R" (rank R), "last:N" (last N blocks) or "all"',
        ),
    )
    bounds: dict[str, Bounds] = field(
        default_factory=dict[str, Bounds],
        metadata=about(
            "Public bounds of each feature, in column order (tabular models only): inputs are "
            "clipped to them and scaled to -1..1",
            form='"feature" = [lowest, highest]',
        ),
    )
    categories: dict[str, tuple[str, ...]] = field(
        default_factory=dict[str, tuple[str, ...]],
        metadata=about(
            "Public list of the categories of each feature that is no number, in column order "
            "(tabular models only)",
            form='"feature" = ["category", ...]',
        ),
    )
    missing: Literal["refuse", "mean", "flag"] = field(
        default="refuse",
        metadata=about(
            "What becomes of a missing number: the record is refused; the common mean stands in "
            "for it; or that and an input of its own that says so"
        ),
    )
    unknown: Literal["refuse", "other"] = field(
        default="refuse",
        metadata=about(
            "What becomes of a category that the plan does not list: the record is refused, or "
            "it counts as none of them"
        ),
    )
    image: tuple[int, ...] = field(
        default=(),
        metadata=about(
            "Height, width and channels of one raw image (image models only); readers give 0..255",
            low=1,
            high=8192,
            form="three whole numbers, like [28, 28, 1]",
        ),
    )
    options: dict[str, float] = field(
        default_factory=dict[str, float],
        metadata=about(
            "Sizes that the model's card names, such as hidden units or tokens per text",
            form='"name" = number',
        ),
    )
    class_weights: tuple[float, ...] = field(
        default=(),
        metadata=about(
            "Public weight of each class in the loss, in label order; none: 1 each",
            above=0,
            high=1e6,
            form="a list of numbers, one per class",
        ),
    )
    target: tuple[float, ...] = field(
        default=(),
        metadata=about(
            "Regression: public lowest and highest value of the target. Survival: public times, "
            "rising, between which the baseline hazard is constant",
            form="a list of rising numbers",
        ),
    )
