"""transformers' models of texts and images behind one interface, with a head of the right size."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core.errors import InvalidInput, NotAvailable
from .heads import Headed, scaled, zero_head
from .hf_folder import config_of, folder_of, weights_path
from .images import IMAGENET_MEAN, IMAGENET_SD, ImagePreprocess, resized
from .outputs import input_kind, outputs
from .states import Source, State, pinned, read_state

if TYPE_CHECKING:
    from ..core.plan_model import ModelRef
    from .cards import ModelCard

MEAN, FIRST = 1, 2
OWN_HEADS = {"text": "ForSequenceClassification", "image": "ForImageClassification"}


class Tokens(nn.Module):
    """Token numbers that came as floats (exact below 2^24) as whole numbers again."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens) of any type to int64."""
        return x.long()


class TextBody(nn.Module):
    """A transformer and one vector per text: the mean of its tokens, or the first one."""

    def __init__(self, net: nn.Module, *, padding: int, pool: int) -> None:
        super().__init__()
        self.net, self.padding, self.pool = net, padding, pool

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (batch, tokens) int64 to (batch, width); padding does not count."""
        real = tokens != self.padding
        seen = self.net(input_ids=tokens, attention_mask=real.long()).last_hidden_state
        if self.pool == FIRST:
            return seen[:, 0]
        weight = real.to(seen.dtype).unsqueeze(-1)
        return (seen * weight).sum(1) / weight.sum(1).clamp(min=1)


class ImageBody(nn.Module):
    """A vision model and one vector per image: the mean of its places, or the class token."""

    def __init__(self, net: nn.Module, *, pool: int) -> None:
        super().__init__()
        self.net, self.pool = net, pool

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to (batch, width)."""
        seen = self.net(pixel_values=x).last_hidden_state
        if seen.ndim == 4:
            return seen.mean((2, 3))
        return seen[:, 0] if self.pool == FIRST else seen.mean(1)


class Answers(nn.Module):
    """A model with its own head, untouched: raw values in, its logits out."""

    def __init__(self, preprocess: nn.Module, net: nn.Module, *, padding: int | None) -> None:
        super().__init__()
        self.preprocess, self.net, self.padding = preprocess, net, padding

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, ...) raw values to (batch, classes)."""
        x = self.preprocess(x)
        if self.padding is None:
            return self.net(pixel_values=x).logits
        return self.net(input_ids=x, attention_mask=(x != self.padding).long()).logits


def build(card: ModelCard, ref: ModelRef, source: Source | None) -> nn.Module:
    """Return the model with a zero head; ``source`` None: with random weights.

    Raises ``NotAvailable`` without transformers and ``MissingInput`` without its folder.
    """
    folder, config = _configured(ref)
    net = _net(config, source() if source else None, ref.name)
    if getattr(net, "pooler", None) is not None:
        net.pooler = None  # a layer that belongs to the former head
    norm = card.option(ref, "feature_norm")
    pool = card.whole(ref, "pool") or _pool(folder, net)
    if input_kind(ref) == "image":
        preprocess, body = _pixels(card, ref, folder, config), ImageBody(net, pool=pool)
    else:
        _require_tokens(card, ref, config)
        preprocess, body = Tokens(), TextBody(net, padding=_padding(config), pool=pool)
    return Headed(preprocess, scaled(body, norm), zero_head(_width(config), outputs(ref)))


def open_model(card: ModelCard, ref: ModelRef, source: Source | None) -> nn.Module | None:
    """Return the untouched classifier when its own head has the plan's number of classes."""
    if source is None:
        return None
    folder, config = _configured(ref)
    kind = input_kind(ref)
    names = config.architectures or [""]
    if not names[0].endswith(OWN_HEADS[kind]) or config.num_labels != len(ref.classes):
        return None
    import transformers

    with _quiet():
        kind_of = getattr(transformers, names[0])
        net = kind_of.from_pretrained(None, config=config, state_dict=source())
    if kind == "image":
        return Answers(_pixels(card, ref, folder, config), net, padding=None)
    return Answers(Tokens(), net, padding=_padding(config))


def folder_state(card: ModelCard, ref: ModelRef) -> State:
    """Return the tensors of the model's folder; raises as ``states.state_of``."""
    return read_state(weights_path(folder_of(ref), ref.name), pinned(card, ref))


def _configured(ref: ModelRef) -> tuple[Path, Any]:
    if find_spec("transformers") is None:
        raise NotAvailable(
            "transformers' models are not available here",
            why="the package transformers is not installed",
            cure="pip install 'collegium[hf]'",
        )
    from transformers import AutoConfig

    folder = folder_of(ref)
    try:
        config = AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"config.json of '{ref.name}' names no model that transformers builds",
            why="programs that come with a model are never run",
            cure="name a model whose architecture is part of transformers",
        ) from error
    return folder, config


@contextmanager
def _quiet() -> Generator[None]:
    """Keep transformers' warnings and progress bars out of a run's own output."""
    from transformers.utils import logging

    loud, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(loud)
        if bars:
            logging.enable_progress_bar()


def _net(config: Any, state: State | None, name: str) -> Any:
    from transformers import AutoModel

    if state is None:
        return AutoModel.from_config(config, trust_remote_code=False)
    with torch.device("meta"):
        kind = type(AutoModel.from_config(config, trust_remote_code=False))
    try:
        with _quiet():
            net, report = kind.from_pretrained(
                None, config=config, state_dict=state, output_loading_info=True
            )
    except RuntimeError as error:
        raise InvalidInput(
            f"The pinned weights do not fit '{name}'",
            why=str(error).partition("\n")[0],
            cure="pin the weights that belong to this config.json",
        ) from error
    absent = [key for key in report["missing_keys"] if not key.startswith("pooler.")]
    if absent:
        raise InvalidInput(
            f"{len(absent)} tensors of '{name}' are not in the pinned weights",
            why="they would begin at random",
            cure="pin the weights that belong to this config.json",
        )
    return net


def _pool(folder: Path, net: Any) -> int:
    """Return how the model's own files join tokens: sentence-transformers says it, else the mean
    of a text, and the class token of an image where there is one."""
    said = config_of(folder, "1_Pooling/config.json")
    if said.get("pooling_mode_cls_token"):
        return FIRST
    return FIRST if hasattr(getattr(net, "embeddings", None), "cls_token") else MEAN


def _padding(config: Any) -> int:
    padding = getattr(config, "pad_token_id", None)
    return int(padding) if isinstance(padding, int) else -1


def _width(config: Any) -> int:
    for name in ("hidden_size", "d_model", "dim", "n_embd"):
        if isinstance(getattr(config, name, None), int):
            return getattr(config, name)
    return int(config.hidden_sizes[-1])


def _pixels(card: ModelCard, ref: ModelRef, folder: Path, config: Any) -> ImagePreprocess:
    said = config_of(folder, "preprocessor_config.json")
    size = getattr(config, "image_size", 0)
    fixed = int(size[0] if isinstance(size, list | tuple) else size or 0)
    return ImagePreprocess(
        resized(card, ref, fixed=fixed),
        said.get("image_mean") or IMAGENET_MEAN,
        said.get("image_std") or IMAGENET_SD,
    )


def _require_tokens(card: ModelCard, ref: ModelRef, config: Any) -> None:
    most = getattr(config, "max_position_embeddings", None)
    if isinstance(most, int) and card.whole(ref, "tokens") > most:
        raise InvalidInput(
            f"[model.options] tokens is more than the {most} that '{ref.name}' can read",
            why="it knows no further positions",
            cure=f"write tokens = {most} or fewer",
        )
