"""What only a run shows: a copy of the model sees synthetic records, and every layer is watched."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import InvalidInput, Problem

TOLERANCE = 1e-4  # of the largest number: kernels may round a record differently beside others


@dataclass(slots=True)
class _Seen:
    """One run: the first record's part of each output, in order, and each layer's calls."""

    count: int
    outputs: list[tuple[str, Tensor]] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    again: set[str] = field(default_factory=set)
    rows: dict[str, int] = field(default_factory=dict)
    backward: bool = False

    def note(self, name: str, inputs: tuple[Any, ...], output: Any) -> None:
        """Take in one call of the module ``name``."""
        if self.backward:
            self.again.add(name)
            return
        self.calls[name] = self.calls.get(name, 0) + 1
        if not isinstance(output, Tensor):
            return
        for value in (output, *inputs[:1]):
            if isinstance(value, Tensor) and value.shape[:1] != (self.count,):
                self.rows[name] = len(value) if value.dim() else 0
        if output.dim() and len(output) % self.count == 0:
            share = len(output) // self.count
            self.outputs.append((name, output[:share].detach().clone()))


def probe(model: nn.Module, trained: set[int], example: Tensor) -> list[Problem]:
    """Return what goes wrong when a copy of ``model`` runs, in train mode, on ``example``.

    ``trained`` are the ids of the parameters that train; ``example`` (n >= 2, ...) holds synthetic
    records, different from each other. The model and torch's shared generators stay as they were.
    """
    if len(example) < 2:
        raise InvalidInput(
            "one synthetic record is not enough", why="what mixes records shows only with two"
        )
    names = {
        name
        for name, value in model.named_parameters(remove_duplicate=False)
        if id(value) in trained
    }
    twin = copy.deepcopy(model).train()
    for name, value in twin.named_parameters(remove_duplicate=False):
        if value.is_floating_point():
            value.requires_grad_(name in names)
    devices = [example.get_device()] if example.is_cuda else []
    with torch.random.fork_rng(devices), torch.enable_grad():
        try:
            return list(_look(twin, example))
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
            return [
                Problem(
                    where="the model",
                    what=f"it does not run on the synthetic records ({type(error).__name__})",
                    why=str(error).partition("\n")[0][:200],
                    cure="pass records of the shape and type that the model takes",
                )
            ]


def _look(model: nn.Module, example: Tensor) -> Iterator[Problem]:
    before = {name: value.clone() for name, value in model.named_buffers()}
    output, seen = _run(model, example, seed=0, back=True)
    if not isinstance(output, Tensor) or output.shape[:1] != (len(example),):
        kind = type(output).__name__
        yield _problem(
            "",
            f"it returns a {kind} without one row for each record",
            "a loss for each record is needed",
            "wrap it in a module that returns the logits (n, classes)",
        )
        return
    moving = [name for name, value in model.named_buffers() if not _same(value, before[name])]
    for name in moving:
        yield _problem(
            name.rpartition(".")[0],
            f"its buffer '{name}' changes during the forward pass",
            "it would carry something of the records, without noise",
            "freeze it, or leave the layer out",
        )
    yield from _layers(model, seen)
    if moving:
        return
    _, again = _run(model, example, seed=1)
    if (where := _difference(seen, again)) is not None:
        yield _problem(
            where,
            "its result is random, or changes from call to call",
            "the draws of records depend on each other, and on a shared seed",
            "switch the randomness off",
        )
        return
    alone = example[:1].expand_as(example).clone()
    _, other = _run(model, alone, seed=0)
    if (where := _difference(seen, other)) is not None:
        yield _problem(
            where,
            "the first record's result here depends on the other records",
            "one record's gradient would depend on the others",
            "look for batch statistics, or attention that takes the batch for the sequence"
            " (batch_first)",
        )


def _run(model: nn.Module, x: Tensor, *, seed: int, back: bool = False) -> tuple[Any, _Seen]:
    torch.manual_seed(seed)
    seen = _Seen(len(x))
    with _watched(model, seen):
        output = model(x)
        if back and isinstance(output, Tensor) and output.requires_grad:
            seen.backward = True
            output.float().square().sum().backward()
    return output, seen


@contextmanager
def _watched(model: nn.Module, seen: _Seen) -> Generator[None]:
    def hook(name: str) -> Any:
        def call(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            del module
            seen.note(name, inputs, output)

        return call

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _layers(model: nn.Module, seen: _Seen) -> Iterator[Problem]:
    """Yield what is wrong with the calls of layers that train."""
    for name, module in model.named_modules():
        own = [value for value in module._parameters.values() if value is not None]
        own = [value for value in own if value.requires_grad]
        if not own:
            continue
        calls = seen.calls.get(name, 0)
        if calls == 0:
            used = any(value.grad is not None for value in own)
            yield _problem(
                name,
                "its weights are used without calling it" if used else "it is never called",
                "nothing can be seen of what went in and out of it",
                "freeze it, or choose another trainable set",
            )
        elif calls > 1:
            yield _problem(
                name,
                f"it is called {calls} times in one forward pass",
                "a record's gradient would be a sum over the calls",
                "use a layer of its own for each call, or freeze it",
            )
        elif name in seen.again:
            yield _problem(
                name,
                "it is called again in the backward pass",
                "gradient checkpointing runs it twice",
                "switch checkpointing off",
            )
        elif name in seen.rows:
            yield _problem(
                name,
                f"it sees {seen.rows[name]} rows where the batch has {seen.count} records",
                "records cannot be told apart in it",
                "freeze it",
            )


def _difference(one: _Seen, two: _Seen) -> str | None:
    """Return the first module whose part of the first record differs between two runs."""
    for (name, left), (other, right) in zip(one.outputs, two.outputs, strict=False):
        if name != other or not _same(left, right):
            return name
    return None if len(one.outputs) == len(two.outputs) else ""


def _same(left: Tensor, right: Tensor) -> bool:
    if left.shape != right.shape:
        return False
    if not left.is_floating_point():
        return bool(torch.equal(left, right))
    scale = float(left.detach().abs().nan_to_num().amax()) if left.numel() else 0.0
    return torch.allclose(left, right, rtol=0.0, atol=TOLERANCE * scale, equal_nan=True)


def _problem(name: str, what: str, why: str, cure: str) -> Problem:
    where = f"layer '{name}'" if name else "the model"
    return Problem(where=where, what=what, why=why, cure=cure)
