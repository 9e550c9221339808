"""May this model be trained record by record? Every obstacle, with its cure."""

from __future__ import annotations

from torch import nn

from ..core.errors import Problem


def check(model: nn.Module) -> list[Problem]:
    """Return what keeps per-record gradients from being right: batch statistics, shared weights.

    Frozen or not, a layer in training mode that mixes records (BatchNorm) makes one record's
    gradient depend on its neighbours, and its running statistics are a release.
    """
    problems: list[Problem] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            problems.append(
                Problem(
                    where=f"layer '{name}'",
                    what=f"{type(module).__name__} mixes the records of a batch",
                    why="one record's gradient would depend on the others",
                    cure="use GroupNorm, or BatchNorm frozen to its pre-trained statistics",
                )
            )
    owners: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if not parameter.requires_grad:
            continue
        if (first := owners.setdefault(id(parameter), name)) != name:
            problems.append(
                Problem(
                    where=f"parameter '{name}'",
                    what=f"it is the same tensor as '{first}'",
                    why="the gradients of shared weights are not yet summed per record",
                    cure="untie the two, or freeze them",
                )
            )
    return problems
