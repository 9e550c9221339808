"""What keeps a module from right per-record gradients: facts that check and cure share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy

from .channel_norm import is_channel_norm
from .frozen import Statistics
from .layers import rule_for
from .window_attention import KIND, is_window_attention

OPACUS = (nn.Conv3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
OPACUS_OWN = (
    "opacus.layers.dp_rnn.RNNLinear",
    "opacus.layers.dp_multihead_attention.SequenceBias",
)
POSITIONS = frozenset(
    f"{kind}_{noun}"
    for kind in ("position", "positional", "pos", "token_type", "segment", "distance")
    for noun in ("embed", "embedding", "embeddings")
) | {"embed_positions", "wpe", "relative_attention_bias"}
FUNCTIONAL = (KIND, KIND + "V2", "peft.tuners.lora.layer.MultiheadAttention")
CHECKPOINTING = ("gradient_checkpointing", "grad_checkpointing")
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def kind_of(module: nn.Module) -> str:
    """Return the full name of a module's class."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def keeps_statistics(module: nn.Module) -> bool:
    """Return whether it mixes the records of a batch, or keeps averages over them.

    Any BatchNorm, whatever its mode and whatever of it trains (one ``train()`` wakes it);
    InstanceNorm only with running statistics.
    """
    if not isinstance(module, Statistics) or isinstance(module, LazyModuleMixin):
        return False
    return isinstance(module, nn.modules.batchnorm._BatchNorm) or module.track_running_stats


def rates(module: nn.Module) -> dict[str, float]:
    """Return its chances of dropping something, by attribute: dropout, stochastic depth and so on.

    Other people's modules hold them as numbers named after dropping, so names decide.
    """
    own = {"p"} if isinstance(module, nn.modules.dropout._DropoutNd) else set[str]()
    if type(module).__name__ == "StochasticDepth":
        own.add("p")
    return {
        name: float(value)
        for name, value in vars(module).items()
        if (name in own or "drop" in name)
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 < value <= 1
    }


def checkpoints(module: nn.Module) -> bool:
    """Return whether it would run its layers a second time in the backward pass."""
    return any(vars(module).get(name) is True for name in CHECKPOINTING)


def works_in_place(module: nn.Module) -> bool:
    """Return whether it overwrites its input."""
    return vars(module).get("inplace") is True


def is_unmaterialised(module: nn.Module) -> bool:
    """Return whether some of its own weights are not there yet (lazy, or on the meta device)."""
    held = [*module._parameters.values(), *module._buffers.values()]
    return any(value is not None and (is_lazy(value) or value.is_meta) for value in held)


def uses_layers_as_weights(module: nn.Module) -> bool:
    """Return whether it hands its layers' weights to a function instead of calling the layers."""
    return isinstance(module, nn.MultiheadAttention) or kind_of(module) in FUNCTIONAL


def is_replaceable(module: nn.Module) -> bool:
    """Return whether ``cure`` has an equivalent made of layers that can be followed."""
    from .attention import replaceable

    if isinstance(module, nn.MultiheadAttention):
        return replaceable(module)
    return is_window_attention(module) or is_channel_norm(module)


def has_engine(module: nn.Module, names: Sequence[str]) -> bool:
    """Return whether a clipping engine has a rule for the parameters ``names`` of ``module``."""
    if "forward" in vars(module):
        return False
    return rule_for(module, names) is not None or needs_opacus(module)


def needs_opacus(module: nn.Module) -> bool:
    """Return whether only the Opacus engine has a rule for it."""
    if type(module) in OPACUS:
        return getattr(module, "padding_mode", "zeros") == "zeros"
    return kind_of(module) in OPACUS_OWN


def sees_positions(name: str, module: nn.Module) -> bool:
    """Return whether a layer looks up positions or segments, the same for all records.

    Such tables see one row for the whole batch, so that records cannot be told apart. They are
    known by name; the engine refuses others when it sees that one row.
    """
    return isinstance(module, nn.Embedding) and name.rpartition(".")[2].lower() in POSITIONS


@dataclass(frozen=True, slots=True)
class Owned:
    """Trained parameters ``keys`` of a module, and ``why`` no engine can follow them."""

    name: str
    module: nn.Module
    keys: tuple[str, ...]
    why: str


def unfollowed(model: nn.Module, trained: set[int]) -> Iterator[Owned]:
    """Yield what would train without a per-record gradient; ``trained`` are parameters' ids.

    One entry for all layers inside an attention module that uses their weights itself.
    BatchNorm and its like have a rule of their own (``keeps_statistics``).
    """
    inside: list[str] = []
    for name, module in model.named_modules():
        if any(name.startswith(prefix) for prefix in inside) or keeps_statistics(module):
            continue
        if uses_layers_as_weights(module):
            inside.append(name + "." if name else "")
            keys = tuple(k for k, v in module.named_parameters() if id(v) in trained)
            if keys:
                yield Owned(name, module, keys, "hands its weights to a function")
            continue
        keys = tuple(k for k, v in module._parameters.items() if id(v) in trained)
        if not keys or is_unmaterialised(module):
            continue
        if sees_positions(name, module):
            yield Owned(name, module, keys, "looks up positions, once for the whole batch")
        elif not has_engine(module, keys):
            yield Owned(name, module, keys, _why(module, keys))


def _why(module: nn.Module, keys: tuple[str, ...]) -> str:
    if "forward" in vars(module):
        return "had its forward replaced"
    if getattr(module, "scale_grad_by_freq", False):
        return "divides gradients by how often a token is in the batch"
    if getattr(module, "max_norm", None) is not None:
        return "rescales its rows during the forward pass"
    holder = isinstance(module, nn.ParameterList | nn.ParameterDict)
    if holder or any(True for _ in module.children()):
        return f"holds {', '.join(keys)} itself, not in a layer"
    return "is a layer that no clipping engine knows"


def shared(model: nn.Module, trained: set[int]) -> Iterator[tuple[str, str]]:
    """Yield (name, earlier name) of parameters that are one tensor or overlap in memory.

    Only where at least one of the two trains.
    """
    seen: dict[int, list[tuple[int, int, str, nn.Parameter]]] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        if is_lazy(value) or value.is_meta or value.numel() == 0:
            continue
        start = int(value.storage_offset()) * value.element_size()
        stop = start + _span(value) * value.element_size()
        others = seen.setdefault(value.untyped_storage().data_ptr(), [])
        for first, last, other, held in others:
            if first < stop and start < last and ({id(held), id(value)} & trained):
                yield name, other
                break
        others.append((start, stop, name, value))


def _span(value: Tensor) -> int:
    """Return how many elements of memory lie between a tensor's first and last one, inclusive."""
    steps = zip(value.shape, value.stride(), strict=True)
    return 1 + sum((int(count) - 1) * int(stride) for count, stride in steps)


def is_compiled(module: nn.Module) -> bool:
    """Return whether it is scripted or compiled: hooks inside are not sure to run."""
    return isinstance(module, torch.jit.ScriptModule) or type(module).__name__ == "OptimizedModule"
