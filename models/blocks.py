"""What the last N blocks of a model are, for ``trainable = "last:N"``."""

from __future__ import annotations

from torch import nn

from ..core.errors import InvalidInput

CONTAINERS = (nn.Sequential, nn.ModuleList)
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def last_blocks(model: nn.Module, count: int) -> list[str]:
    """Return the names of the last ``count`` blocks before the head, with what follows them.

    ``Sequential`` and ``ModuleList`` are unrolled wherever they stand; any other module is where
    it holds such a container and more than half of the body's weights (embeddings aside), as the
    encoder of a transformer does. What remains is a block: a residual block, a transformer
    layer, a convolution. Norms belong to the block before them. Raises ``InvalidInput`` when
    there are fewer blocks than ``count``: nearly everything would train under a small name.
    """
    parts = _parts(model)
    blocks = [place for place, (_, module) in enumerate(parts) if not isinstance(module, NORMS)]
    if parts and count > len(blocks):
        raise InvalidInput(
            f"trainable = 'last:{count}' asks for more blocks than this model has",
            why=f"this model has {len(blocks)} block{'s' * (len(blocks) != 1)} before its head",
            cure=f'write "last:{len(blocks)}" or fewer, or "all"' if blocks else 'write "all"',
        )
    return [name for name, _ in parts[blocks[-count] :]] if parts else []


def _parts(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the blocks and norms before the head, in module order."""
    body = model.get_submodule("body") if "body" in dict(model.named_children()) else None
    return [] if body is None else _unrolled("body", body, _weights(body) / 2)


def _unrolled(name: str, module: nn.Module, half: float) -> list[tuple[str, nn.Module]]:
    found: list[tuple[str, nn.Module]] = []
    for key, child in module.named_children():
        path = f"{name}.{key}"
        if not any(True for _ in child.parameters()):
            continue
        opens = type(child) in CONTAINERS or (_holds_container(child) and _weights(child) > half)
        if opens and any(True for _ in child.children()):
            found += _unrolled(path, child, half)
        else:
            found.append((path, child))
    return found


def _holds_container(module: nn.Module) -> bool:
    return any(type(inner) in CONTAINERS for inner in module.modules() if inner is not module)


def _weights(module: nn.Module) -> int:
    tables = [inner for inner in module.modules() if isinstance(inner, nn.Embedding)]
    every = sum(value.numel() for value in module.parameters())
    return every - sum(table.weight.numel() for table in tables)
