"""The layers of a network before and after pruning: shapes of their weights, and MACs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lightweight.macs import count_macs_by_module

LAYER_COLUMNS = ("layer", "shape", "macs", "shape_after", "macs_after")


@dataclass(frozen=True)
class WeightedModule:
    """Hold the shape of a weight of two dimensions or more, and the MACs of its module per image."""

    shape: tuple[int, ...]
    macs: int


def list_modules(model: nn.Module, image: Tensor) -> dict[str, WeightedModule]:
    """List the convolutions and linear layers of a network by name, with their MACs for an image (1, C, H, W)."""
    macs = count_macs_by_module(model, image)
    weights = {name: getattr(module, "weight", None) for name, module in model.named_modules()}
    return {
        name: WeightedModule(tuple(weight.shape), macs.get(name, 0))
        for name, weight in weights.items()
        if isinstance(weight, Tensor) and weight.dim() > 1
    }


def layer_rows(before: Mapping[str, WeightedModule], after: Mapping[str, WeightedModule]) -> list[dict[str, Any]]:
    """List every layer that both networks have, with its shape and MACs in each; a shape reads like 32x16x3x3."""
    rows = [
        (name, _text(before[name].shape), before[name].macs, _text(after[name].shape), after[name].macs)
        for name in before
        if name in after
    ]
    return [dict(zip(LAYER_COLUMNS, row, strict=True)) for row in rows]


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
