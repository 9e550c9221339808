"""Make an open model ready for training record by record, with its pre-trained weights kept."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..core.errors import InvalidInput
from . import obstacles as ob
from .replacements import Rename, Replacement, replacement


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that ``cure`` did: its kind, where, what, why, and new names of keys."""

    kind: str
    where: str
    what: str
    why: str
    renames: tuple[Rename, ...] = ()

    def __str__(self) -> str:
        return f"{self.where}: {self.what} ({self.why})"


class Cured(NamedTuple):
    """A ready model, and what was done to get there, in order."""

    model: nn.Module
    changes: tuple[Change, ...]

    def summary(self) -> str:
        """Return the changes in one line: how many of each kind."""
        kinds = Counter(change.kind for change in self.changes)
        return ", ".join(f"{kind}: {count}" for kind, count in sorted(kinds.items()))


def cure(model: nn.Module) -> Cured:
    """Return a copy of ``model`` that can be trained record by record; ``model`` stays as it is.

    In eval mode the copy computes what ``model`` does, and it does so in train mode, too:
    nothing in it is random, and nothing but its parameters can change.

    - wrappers (DataParallel) are taken off;
    - BatchNorm, and InstanceNorm with running statistics, become ``FrozenNorm``;
    - attention that uses its layers' weights itself becomes ``ProjectedAttention`` or
      ``WindowAttention``, and LayerNorm2d ``ChannelNorm``;
    - dropout, stochastic depth, gradient checkpointing, in-place modules and ``max_norm`` are
      switched off;
    - what still cannot be followed is frozen: position and segment embeddings, shared weights,
      parameters that a module holds itself (class tokens, layer scales).

    Keys of the ``state_dict`` stay, but for attention and LayerNorm2d (``Change.renames``);
    ``original_state`` leads back. ``readiness.check`` tells what remains (a BatchNorm without
    statistics, lazy modules); ``readiness.may_train`` names what can be trained.
    """
    changes: list[Change] = []
    cured = copy.deepcopy(model)
    while isinstance(cured, ob.WRAPPERS):
        cured = cast("nn.Module", cured.module)
        changes.append(_unwrapped(model, cured))
    cured = _replace(cured, changes)
    for name, module in cured.named_modules():
        changes.extend(_switched_off(name, module))
    changes.extend(_frozen(cured))
    return Cured(cured, tuple(changes))


def original_state(state: Mapping[str, Tensor], changes: Sequence[Change]) -> dict[str, Tensor]:
    """Return a cured model's state, or some entries of it, under the original model's names.

    So the released tensors of a run load into the open model they started from. Raises
    ``InvalidInput`` when only some pieces of a joined tensor are there.
    """
    found = dict(state)
    for rename in (item for change in reversed(changes) for item in reversed(change.renames)):
        pieces = [found.pop(name) for name in rename.after if name in found]
        if not pieces:
            continue
        if len(pieces) < len(rename.after):
            raise InvalidInput(
                f"'{rename.before}' cannot be put together",
                why=f"it consists of {', '.join(rename.after)}, and some of them are missing",
                cure="pass the whole state_dict, or train and release all of them",
            )
        found[rename.before] = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    return found


def _unwrapped(wrapper: nn.Module, inner: nn.Module) -> Change:
    return Change(
        kind="wrappers off",
        where="the model",
        what=f"taken out of {type(wrapper).__name__}",
        why="per-record gradients are taken on the model itself",
        renames=tuple(
            Rename(before=f"module.{name}", after=(name,)) for name in inner.state_dict()
        ),
    )


def _replace(model: nn.Module, changes: list[Change]) -> nn.Module:
    """Put equivalents in the places of modules, the same one wherever the same module stood."""
    found: dict[int, Replacement | None] = {}

    def visit(module: nn.Module, name: str) -> nn.Module:
        if id(module) not in found:
            found[id(module)] = replacement(module)
        made = found[id(module)]
        if made is not None:
            found[id(made.module)] = made  # a shared container may lead here again
            prefix = f"{name}." if name else ""
            renames = tuple(rename.under(prefix) for rename in made.renames)
            changes.append(_change(made.kind, name, made.what, made.why, renames))
            return made.module
        if ob.uses_layers_as_weights(module):
            return module  # it reaches into its parts, which must stay what they are
        for key, child in list(module._modules.items()):
            if child is not None:
                module._modules[key] = visit(child, f"{name}.{key}" if name else key)
        return module

    return visit(model, "")


def _switched_off(name: str, module: nn.Module) -> Iterator[Change]:
    settable = cast("Any", module)
    if found := ob.rates(module):
        for key in found:
            setattr(module, key, 0.0)
        why = "the draws of records depend on each other, and on a shared seed"
        yield _change("random drops off", name, f"{', '.join(found)} set to 0", why)
    if ob.works_in_place(module):
        settable.inplace = False
        yield _change("in-place off", name, "works out of place", "it overwrote its input")
    if ob.checkpoints(module):
        for key in ob.CHECKPOINTING:
            if key in vars(module):
                setattr(module, key, False)
        why = "its layers would run twice"
        yield _change("checkpointing off", name, "gradient checkpointing is off", why)
    if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None:
        with torch.no_grad():
            module.weight.copy_(torch.renorm(module.weight, module.norm_type, 0, module.max_norm))
        settable.max_norm = None
        why = "every batch rescaled the rows that it used"
        yield _change("tables rescaled", name, "rescaled once, for good", why)


def _frozen(model: nn.Module) -> Iterator[Change]:
    """Freeze the trained parameters that no engine can follow."""
    kind = "parameters frozen"
    for owned in list(ob.unfollowed(model, _trained(model))):
        for key in owned.keys:
            owned.module.get_parameter(key).requires_grad_(False)
        yield _change(kind, owned.name, f"{', '.join(owned.keys)} frozen", f"it {owned.why}")
    by_name = dict(model.named_parameters(remove_duplicate=False))
    for name, other in list(ob.shared(model, _trained(model))):
        for key in (name, other):
            by_name[key].requires_grad_(False)
        where, what = f"parameter '{name}'", f"frozen together with '{other}'"
        yield Change(kind=kind, where=where, what=what, why="the two share their memory")


def _trained(model: nn.Module) -> set[int]:
    return {id(value) for value in model.parameters() if value.requires_grad}


def _change(kind: str, name: str, what: str, why: str, renames: tuple[Rename, ...] = ()) -> Change:
    where = f"layer '{name}'" if name else "the model"
    return Change(kind=kind, where=where, what=what, why=why, renames=renames)
