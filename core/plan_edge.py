"""How the released model becomes a small one: student, public data, quantization, gate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .fields import about


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeConfig:
    """How the released model becomes a small one: student, public transfer set, gate."""

    student: str = field(
        default="auto",
        metadata=about(
            "The small model that is distilled for devices: a family and size, an open model of "
            '[model], "size:BYTES" for the largest one whose file is that small; "same" for the '
            'global model itself, "none" for no edge stage',
            form='"auto", "same", "none" or FAMILY:NAME, like "cnn:tiny" or "size:100000"',
        ),
    )
    transfer: str = field(
        default="auto",
        metadata=about(
            "Public or synthetic data on which the student learns; private data are refused. "
            '"public": those that [simulation] public_share or `publish --transfer` gives; '
            '"sha256:...": the same, and they must be these',
            form='"auto", "public", "sha256:...", or FAMILY:NAME, like "collegium:glyphs"',
        ),
    )
    recipe: str = field(
        default="auto",
        metadata=about(
            "How the student is quantized; auto measures candidates and ships the best",
            form='"auto" or the name of a recipe',
        ),
    )
    prefer: Literal["speed", "size"] = field(
        default="speed",
        metadata=about(
            "What auto ships of the candidates that pass: the fastest, none slower than fp32; or "
            "the smallest, however fast"
        ),
    )
    target: Literal["here", "x86", "arm"] = field(
        default="here",
        metadata=about(
            'Processor of the devices, which decides the signs of int8; "here": this machine\'s'
        ),
    )
    min_agreement: float = field(
        default=0.95,
        metadata=about("Share of answers in which student and teacher must agree", low=0, high=1),
    )
    min_fidelity: float = field(
        default=0.95,
        metadata=about(
            "Share of answers in which a quantized student must agree with its own fp32",
            low=0,
            high=1,
        ),
    )
    max_accuracy_drop: float = field(
        default=0.02,
        metadata=about("Largest loss of accuracy from teacher to student", low=0, high=1),
    )
    max_auc_drop: float = field(
        default=0.02,
        metadata=about("Largest loss of AUC from teacher to student", low=0, high=1),
    )
    valid_days: int = field(
        default=365,
        metadata=about("Days for which devices take the bundle", low=1, high=3650),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """How the student is trained: public constants, chosen on public data.

    ``steps`` batches of ``batch`` records at peak ``learning_rate`` (one-cycle).
    """

    loss: Literal["kl", "logit-std"] = field(
        default="kl",
        metadata=about(
            '"kl": the teacher\'s softened answers (Hinton et al. 2015); "logit-std": of '
            "standardised logits (Sun et al., CVPR 2024)"
        ),
    )
    temperature: float = field(
        default=4.0, metadata=about("Temperature that softens the answers", above=0, high=100)
    )
    hint: float = field(
        default=0.0,
        metadata=about(
            "Weight of a second loss: the student's features, mapped linearly, against the "
            "teacher's (FitNets, Romero et al. 2015)",
            low=0,
            high=1000,
        ),
    )
    mixup: float = field(
        default=0.5,
        metadata=about("Share of records that are blended with another one", low=0, high=1),
    )
    noise: float = field(
        default=0.06,
        metadata=about(
            "Largest deviation of the noise on inputs, as a share of their range", low=0, high=1
        ),
    )
    augment: Literal["none", "shift", "flip", "flip-shift"] = field(
        default="none",
        metadata=about("How images are varied: shifted by a few pixels, mirrored, or both"),
    )
    steps: int = field(default=500, metadata=about("Batches in all", low=1, high=10**6))
    batch: int = field(default=128, metadata=about("Records in a batch", low=2, high=65536))
    learning_rate: float = field(
        default=1e-2, metadata=about("Peak learning rate of AdamW", above=0, high=10)
    )
    weight_decay: float = field(
        default=1e-2, metadata=about("Weight decay of AdamW", low=0, high=10)
    )
    patience: int = field(
        default=0,
        metadata=about(
            "Evaluations on held-out records of the transfer set without a gain after which it "
            "stops, the best student kept; 0: it runs to the end",
            low=0,
            high=1000,
        ),
    )
