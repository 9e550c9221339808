"""May this model be trained record by record? Every obstacle, with its cure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from ..core.errors import Problem
from . import obstacles as ob
from .frozen import Statistics, has_statistics

CURE = "privacy.cure.cure(model)"


def check(
    model: nn.Module, trainable: Iterable[str] | None = None, *, example: Tensor | None = None
) -> list[Problem]:
    """Return everything that keeps per-record gradients from being right, each with its cure.

    ``trainable``: the names of the parameters that will train (an empty list is a problem); None:
    those that require a gradient, if any. The types, names and options of modules are looked at.
    With ``example``, (n >= 2, ...) synthetic records, a copy of a model that looks well also runs
    on them (``probe``), which finds what no look can: layers that are never called, functions
    that mix records. A frozen layer may be anything, as long as it does not mix records,
    remember them, or draw random numbers.
    """
    trained, problems = _trained(model, trainable)
    rules = (
        _wrapped(model),
        _unmaterialised(model),
        _statistics(model),
        _random(model),
        _rerun(model),
        _renormed(model),
        _shared(model, trained),
        _unfollowed(model, trained),
        _in_place(model, trained),
    )
    for rule in rules:
        problems.extend(rule)
    if example is not None and not problems:
        from .probe import probe

        problems.extend(probe(model, trained, example))
    return problems


def may_train(model: nn.Module) -> list[str]:
    """Return the names of the parameters that could train record by record, in module order.

    These are the weights of layers that a clipping engine can follow and that no other name
    shares; what requires a gradient now does not matter.
    """
    every = {id(value) for value in model.parameters()}
    out: set[str] = set()
    for owned in ob.unfollowed(model, every):
        out.update(_join(owned.name, key) for key in owned.keys)
    for name, other in ob.shared(model, every):
        out |= {name, other}
    for name, module in model.named_modules():
        if ob.keeps_statistics(module) or ob.is_unmaterialised(module):
            out.update(_join(name, key) for key in module._parameters)
    return [name for name, _ in model.named_parameters() if name not in out]


def _trained(model: nn.Module, trainable: Iterable[str] | None) -> tuple[set[int], list[Problem]]:
    """Return the ids of the parameters that train, and what is wrong with their names."""
    known = dict(model.named_parameters(remove_duplicate=False))
    if trainable is None:
        names = [name for name, value in known.items() if value.requires_grad]
    else:
        names = list(trainable)
    problems = [
        Problem(
            where=f"parameter '{name}'",
            what="the model has no parameter of this name",
            why="what trains must be known exactly: it is what leaves a site",
            cure="take names from model.named_parameters()",
        )
        for name in names
        if name not in known
    ]
    if trainable is not None and not names:
        problems.append(
            Problem(
                where="the model",
                what="none of its parameters trains",
                why="there is nothing to learn and nothing to release",
                cure="set requires_grad on a head, adapters or more",
            )
        )
    return {id(known[name]) for name in names if name in known}, problems


def _wrapped(model: nn.Module) -> Iterator[Problem]:
    for name, module in model.named_modules():
        if isinstance(module, ob.WRAPPERS):
            yield Problem(
                where=_layer(name),
                what=f"{type(module).__name__} spreads a batch over replicas of the model",
                why="per-record gradients are taken on the model itself",
                cure=f"pass its .module, or use {CURE}",
            )
        elif ob.is_compiled(module):
            yield Problem(
                where=_layer(name),
                what=f"{type(module).__name__} is compiled",
                why="layers inside are fused, and what went through each is not seen",
                cure="train the original module and compile the result",
            )


def _unmaterialised(model: nn.Module) -> Iterator[Problem]:
    for name, module in model.named_modules():
        if ob.is_unmaterialised(module):
            yield Problem(
                where=_layer(name),
                what=f"{type(module).__name__} has weights that do not exist yet",
                why="the first batch, of private records, would decide their shape",
                cure="load the weights, or run the model once on a synthetic record",
            )


def _statistics(model: nn.Module) -> Iterator[Problem]:
    for name, module in model.named_modules():
        if not ob.keeps_statistics(module):
            continue
        frozen = f"{CURE} freezes it to its pre-trained statistics; or use GroupNorm"
        kept = isinstance(module, Statistics) and has_statistics(module)
        mixes = isinstance(module, nn.modules.batchnorm._BatchNorm)
        yield Problem(
            where=_layer(name),
            what=f"{type(module).__name__} "
            + ("mixes the records of a batch" if mixes else "keeps averages over records"),
            why=(
                "one record's gradient would depend on the others, and running statistics would"
                " carry records out without noise; neither eval mode nor a frozen scale prevents"
                " it, because one train() wakes it"
            ),
            cure=frozen if kept else "it has no statistics to freeze: use GroupNorm",
        )


def _random(model: nn.Module) -> Iterator[Problem]:
    for name, module in model.named_modules():
        if found := ob.rates(module):
            options = ", ".join(f"{key}={value:g}" for key, value in found.items())
            yield Problem(
                where=_layer(name),
                what=f"{type(module).__name__} drops at random ({options})",
                why=(
                    "its draws come from torch's shared generator, in the order of the batch: who"
                    " knows or sets that seed sees one record shift the draws of all after it,"
                    " which no clip norm bounds"
                ),
                cure=f"set it to 0 ({CURE} does); the privacy noise regularises already",
            )


def _rerun(model: nn.Module) -> Iterator[Problem]:
    for name, module in model.named_modules():
        if ob.checkpoints(module):
            yield Problem(
                where=_layer(name),
                what="gradient checkpointing is on",
                why="its layers run a second time in the backward pass, and would count twice",
                cure=f"call gradient_checkpointing_disable(), or use {CURE}",
            )


def _renormed(model: nn.Module) -> Iterator[Problem]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None:
            yield Problem(
                where=_layer(name),
                what=f"{type(module).__name__} with max_norm rescales the rows that a batch uses",
                why="private records would change weights, also frozen ones, without noise",
                cure=f"rescale all rows once and set max_norm to None ({CURE} does)",
            )


def _shared(model: nn.Module, trained: set[int]) -> Iterator[Problem]:
    for name, other in ob.shared(model, trained):
        yield Problem(
            where=f"parameter '{name}'",
            what=f"it is the same tensor as '{other}'",
            why="a record's gradient would be a sum over both uses, which no engine forms",
            cure=f"untie the two, or freeze them ({CURE} does)",
        )


def _unfollowed(model: nn.Module, trained: set[int]) -> Iterator[Problem]:
    for owned in ob.unfollowed(model, trained):
        if getattr(owned.module, "max_norm", None) is not None:
            continue  # has its own problem
        replace = ob.is_replaceable(owned.module)
        yield Problem(
            where=_layer(owned.name),
            what=f"{type(owned.module).__name__} trains {_listed(owned.keys)} but {owned.why}",
            why="its parameters would get no per-record gradient, or a wrong one",
            cure=(
                f"{CURE} replaces it by an equivalent made of layers; or freeze it"
                if replace
                else f"freeze it ({CURE} does), or choose another trainable set"
            ),
        )


def _in_place(model: nn.Module, trained: set[int]) -> Iterator[Problem]:
    """Name in-place modules where Opacus hooks are needed; the other engine follows them."""
    fallback = any(
        ob.needs_opacus(module) and any(id(v) in trained for v in module._parameters.values())
        for module in model.modules()
    )
    for name, module in model.named_modules() if fallback else ():
        if ob.works_in_place(module):
            yield Problem(
                where=_layer(name),
                what=f"{type(module).__name__} overwrites its input in place",
                why="some trained layer needs Opacus hooks, which fail on such outputs",
                cure=f"set inplace=False ({CURE} does)",
            )


def _layer(name: str) -> str:
    return f"layer '{name}'" if name else "the model"


def _join(prefix: str, key: str) -> str:
    return f"{prefix}.{key}" if prefix else key


def _listed(keys: tuple[str, ...]) -> str:
    return ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
