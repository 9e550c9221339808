"""Students that are open models themselves: with their open weights where these are known here."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from ..core.digest import file_digest
from ..core.errors import InvalidInput, MissingInput
from ..core.plan_model import ModelRef
from ..models import registry
from ..models.cards_open import weights_of
from ..models.weights import cache_folders, weight_folders
from ..privacy.frozen import FrozenNorm

log = logging.getLogger(__name__)
RANDOM = "random"
SHORT = 8  # digits of a digest in the names of published files


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An open model as student, and ``start``: the weights that it really has, or random ones."""

    model: nn.Module
    start: ModelRef


def open_student(name: str, plan_model: ModelRef) -> Opened:
    """Return an open model that reads the plan's records and answers its classes; all of it trains.

    Its own head stays where its classes are the plan's, else it begins at zero. It starts from
    its open weights where a file with a known digest lies here (or the plan lets the hub be
    asked), else at random. BatchNorm trains: a student sees public records only. Raises
    ``InvalidInput`` for an unknown model or one that reads other records, ``MissingInput`` for
    one that cannot start at random, and ``NotAvailable`` without a package that it needs.
    """
    ref = replace(plan_model, name=name, trainable="all", options=_options(name, plan_model))
    _require_same_records(ref, plan_model)
    card = registry.card(name)
    pinned = replace(ref, weights=card.weights or _digest_here(name))
    can_be_random = RANDOM in {option.name for option in card.options}
    if pinned.weights is None and can_be_random:
        return _opened(replace(ref, weights=None, options={**ref.options, RANDOM: 1}))
    try:
        return _opened(pinned)
    except MissingInput as error:
        if not can_be_random:
            raise
        log.warning("the student '%s' starts at random: %s", name, error.why)
        return _opened(replace(ref, weights=None, options={**ref.options, RANDOM: 1}))


def thawed(model: nn.Module) -> nn.Module:
    """Put BatchNorm with the same values where ``privacy.cure`` has frozen it; return the model."""
    for module in list(model.modules()):
        for key, child in list(module.named_children()):
            if isinstance(child, FrozenNorm):
                setattr(module, key, _batch_norm(child))
    return model


def _opened(ref: ModelRef) -> Opened:
    own = registry.open_model(ref) if RANDOM not in ref.options else None
    model = thawed(registry.build(ref)) if own is None else own
    return Opened(model=model.requires_grad_(True).eval(), start=ref)


def _batch_norm(frozen: FrozenNorm) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(
        len(frozen.running_mean), eps=frozen.eps, affine=frozen.weight is not None
    )
    norm.load_state_dict(frozen.state_dict(), strict=False)  # some count no batches
    return norm


def _options(name: str, plan_model: ModelRef) -> dict[str, float]:
    """Return the plan's options that this model has, too."""
    known = {option.name for option in registry.card(name).options} - {RANDOM}
    return {key: value for key, value in plan_model.options.items() if key in known}


def _require_same_records(ref: ModelRef, plan_model: ModelRef) -> None:
    task = plan_model.task
    if task not in registry.card(ref.name).tasks:
        raise InvalidInput(
            f"the student '{ref.name}' cannot learn the task {task}",
            why=f"it learns {', '.join(registry.card(ref.name).tasks)}",
            cure='write [edge] student = "auto"',
        )
    kind, own = registry.input_kind(ref), registry.input_kind(plan_model)
    shape, wanted = registry.input_shape(ref), registry.input_shape(plan_model)
    # numbers of tokens mean nothing to a model with another vocabulary
    if (kind, shape) != (own, wanted) or (kind == "text" and ref.name != plan_model.name):
        raise InvalidInput(
            f"the student '{ref.name}' reads other records than '{plan_model.name}'",
            why=f"a device gives it what the sites gave their model: {own} of shape {wanted}",
            cure='write [edge] student = "auto", or of a text model "layers:N"',
        )


def _digest_here(name: str) -> str | None:
    """Return the digest of published weights that lie here, None without any."""
    for one in weights_of(name):
        for found in _named(one.sha256[:SHORT]):
            if one.fits(found):
                return found
    return None


def _named(short: str) -> Iterator[str]:
    """Yield the digests of files here whose name holds these digits."""
    for folder in (*weight_folders(), *cache_folders()):
        for path in sorted(folder.rglob(f"*{short}*")):
            if path.is_file():
                yield file_digest(path)
