"""Which layers the book-keeping engine knows: one rule per module type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.errors import InvalidInput, Problem
from .layer_conv import conv_weight
from .layer_gradients import Formed, PerUnitGradient, Scattered, matrix_gradient

Rule = Callable[[nn.Module, Tensor, Tensor, int, frozenset[str]], dict[str, PerUnitGradient]]
"""(layer, its input, the gradient of its output, records per unit, wanted parameters).

Records of a unit follow each other; input and gradient have one leading row per record.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One module that owns trained parameters, and where they lie in the flat vector.

    ``places`` maps a parameter's name in the module to its slice of (d,).
    """

    name: str
    module: nn.Module
    rule: Rule
    places: Mapping[str, slice]

    def gradients(self, a: Tensor, g: Tensor, rows: int) -> dict[str, PerUnitGradient]:
        """Return the per-unit gradients of the trained parameters; float32 at the least."""
        g = g.to(torch.promote_types(g.dtype, torch.float32)).contiguous()
        if a.is_floating_point():
            a = a.to(g.dtype)
        return self.rule(self.module, a.contiguous(), g, rows, frozenset(self.places))


def linear(
    module: nn.Module, a: Tensor, g: Tensor, rows: int, wanted: frozenset[str]
) -> dict[str, PerUnitGradient]:
    """``Linear`` on (n, ..., features): positions of a record, and records of a unit, add up."""
    units = len(g) // rows
    g = g.reshape(units, -1, g.shape[-1])
    found: dict[str, PerUnitGradient] = {}
    if "weight" in wanted:
        found["weight"] = matrix_gradient(g, a.reshape(units, -1, a.shape[-1]))
    if "bias" in wanted:
        found["bias"] = Formed(g.sum(1))
    return found


def convolution(
    module: nn.Module, a: Tensor, g: Tensor, rows: int, wanted: frozenset[str]
) -> dict[str, PerUnitGradient]:
    """``Conv1d`` and ``Conv2d`` of any stride, padding, dilation and groups."""
    found: dict[str, PerUnitGradient] = {}
    if "weight" in wanted:
        found["weight"] = conv_weight(cast("nn.Conv2d", module), a, g, rows)
    if "bias" in wanted:
        found["bias"] = Formed(_per_unit(g.flatten(2).sum(2), rows))
    return found


def affine(
    a: Tensor, g: Tensor, wanted: frozenset[str], reduce: Callable[[Tensor], Tensor]
) -> dict[str, PerUnitGradient]:
    """Scale and shift after a normalisation: ``a`` is the normalised input."""
    found: dict[str, PerUnitGradient] = {}
    if "weight" in wanted:
        found["weight"] = Formed(reduce(g * a))
    if "bias" in wanted:
        found["bias"] = Formed(reduce(g))
    return found


def group_norm(
    module: nn.Module, a: Tensor, g: Tensor, rows: int, wanted: frozenset[str]
) -> dict[str, PerUnitGradient]:
    """``GroupNorm`` on (n, channels, ...)."""
    norm = cast("nn.GroupNorm", module)
    if "weight" in wanted:
        a = functional.group_norm(a, norm.num_groups, eps=norm.eps)
    return affine(a, g, wanted, lambda v: _per_unit(v.reshape(*v.shape[:2], -1).sum(2), rows))


def layer_norm(
    module: nn.Module, a: Tensor, g: Tensor, rows: int, wanted: frozenset[str]
) -> dict[str, PerUnitGradient]:
    """``LayerNorm`` on (n, ..., *normalized_shape)."""
    norm = cast("nn.LayerNorm", module)
    shape = norm.normalized_shape
    if "weight" in wanted:
        a = functional.layer_norm(a, list(shape), eps=norm.eps)
    return affine(a, g, wanted, lambda v: v.reshape(len(v) // rows, -1, *shape).sum(1))


def rms_norm(
    module: nn.Module, a: Tensor, g: Tensor, rows: int, wanted: frozenset[str]
) -> dict[str, PerUnitGradient]:
    """``RMSNorm`` on (n, ..., *normalized_shape)."""
    norm = cast("nn.RMSNorm", module)
    shape = norm.normalized_shape
    a = functional.rms_norm(a, list(shape), eps=norm.eps)
    return affine(a, g, wanted, lambda v: v.reshape(len(v) // rows, -1, *shape).sum(1))


def embedding(
    module: nn.Module, a: Tensor, g: Tensor, rows: int, wanted: frozenset[str]
) -> dict[str, PerUnitGradient]:
    """``Embedding`` of (n, ...) tokens."""
    del wanted
    units = len(g) // rows
    table = cast("nn.Embedding", module)
    g = g.reshape(units, -1, g.shape[-1])
    tokens = a.reshape(units, -1)
    return {"weight": Scattered(tokens, g, table.num_embeddings, table.padding_idx)}


RULES: Mapping[type[nn.Module], tuple[Rule, frozenset[str]]] = MappingProxyType(
    {
        nn.Linear: (linear, frozenset({"weight", "bias"})),
        nn.Conv1d: (convolution, frozenset({"weight", "bias"})),
        nn.Conv2d: (convolution, frozenset({"weight", "bias"})),
        nn.GroupNorm: (group_norm, frozenset({"weight", "bias"})),
        nn.LayerNorm: (layer_norm, frozenset({"weight", "bias"})),
        nn.RMSNorm: (rms_norm, frozenset({"weight"})),
        nn.Embedding: (embedding, frozenset({"weight"})),
    }
)


def rule_for(module: nn.Module, names: Sequence[str]) -> Rule | None:
    """Return the rule of a module's type, or of the type whose ``forward`` it inherits.

    None when the type is unknown or one of ``names`` is not a parameter that the rule handles.
    """
    for known, (rule, handled) in RULES.items():
        inherits = type(module).forward is known.forward and "forward" not in vars(module)
        if isinstance(module, known) and inherits:
            plain = not any(_odd(module))
            return rule if plain and handled.issuperset(names) else None
    return None


def _odd(module: nn.Module) -> list[str]:
    """Return the options that make a layer's gradient mix records or change its weights."""
    return [name for name in ("max_norm", "scale_grad_by_freq") if getattr(module, name, None)]


def names_of(model: nn.Module, parameters: Sequence[nn.Parameter]) -> list[str] | None:
    """Return the model's names of ``parameters``; None when it owns none of them."""
    wanted = {id(parameter) for parameter in parameters}
    named = model.named_parameters(remove_duplicate=False)
    return [name for name, own in named if id(own) in wanted] or None


def owners(model: nn.Module, parameters: Sequence[nn.Parameter]) -> dict[str, nn.Module]:
    """Return the modules that own at least one of ``parameters`` directly, by name."""
    wanted = {id(parameter) for parameter in parameters}
    return {
        name: module
        for name, module in model.named_modules()
        if any(id(own) in wanted for own in module._parameters.values())
    }


def unknown_owners(model: nn.Module, parameters: Sequence[nn.Parameter]) -> dict[str, str]:
    """Return the trained layers that no rule handles: name to type."""
    wanted = {id(parameter) for parameter in parameters}
    return {
        name: type(module).__name__
        for name, module in owners(model, parameters).items()
        if rule_for(module, _trained(module, wanted)) is None
    }


def layers_of(model: nn.Module, parameters: Sequence[nn.Parameter]) -> list[Layer]:
    """Return the layers that own ``parameters``, in the model's order.

    Raises ``InvalidInput`` with every parameter that is not owned by exactly one known layer,
    or that is frozen.
    """
    places: dict[int, slice] = {}
    offset = 0
    for parameter in parameters:
        places[id(parameter)] = slice(offset, offset + parameter.numel())
        offset += parameter.numel()
    found: list[Layer] = []
    claims: list[int] = []
    problems: list[Problem] = []
    for name, module in owners(model, parameters).items():
        own = _trained(module, set(places))
        rule = rule_for(module, own)
        claims.extend(id(module._parameters[key]) for key in own)
        if rule is None:
            problems.append(_unknown(name, module))
        else:
            slices = {key: places[id(module._parameters[key])] for key in own}
            found.append(Layer(name=name, module=module, rule=rule, places=slices))
    problems.extend(_unowned(parameters, claims))
    if problems:
        raise InvalidInput(f"the model {type(model).__name__} cannot be trained", problems)
    return found


def _trained(module: nn.Module, wanted: set[int]) -> list[str]:
    return [key for key, own in module._parameters.items() if id(own) in wanted]


def _unknown(name: str, module: nn.Module) -> Problem:
    odd = _odd(module)
    return Problem(
        where=f"layer '{name}'",
        what=f"{type(module).__name__}{' with ' + ', '.join(odd) if odd else ''} is not known",
        why="its parameters get no per-record gradient",
        cure="freeze it, or use make_clipper, which turns to Opacus where it can",
    )


def _unowned(parameters: Sequence[nn.Parameter], claims: Sequence[int]) -> list[Problem]:
    problems: list[Problem] = []
    named = Counter(id(parameter) for parameter in parameters)
    owned = Counter(claims)
    for index, parameter in enumerate(parameters):
        if named[id(parameter)] > 1:
            what, cure = "it is named twice", "name each parameter once"
        elif owned[id(parameter)] > 1:
            what, cure = "several layers own it", "untie them, or freeze it"
        elif not owned[id(parameter)]:
            what, cure = "no layer of the model owns it", "choose another trainable set"
        elif not parameter.requires_grad:
            what, cure = "it is frozen", "set requires_grad, or leave it out"
        else:
            continue
        shape = tuple(parameter.shape)
        problems.append(
            Problem(
                where=f"trainable parameter {index} of shape {shape}",
                what=what,
                why="it gets no per-record gradient",
                cure=cure,
            )
        )
    return problems


def _per_unit(values: Tensor, rows: int) -> Tensor:
    """Add up the records of each unit: (n, ...) to (units, ...)."""
    return values if rows == 1 else values.unflatten(0, (-1, rows)).sum(1)
