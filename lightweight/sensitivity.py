"""Each layer is pruned alone, statistics of BatchNorm are estimated again, nothing is trained: what does it cost?

Sensitivity as in Han et al. 2015 and Li et al. 2017, by accuracy on validation.
"""

from typing import Any

from pydantic import Field

from lightweight.core.params import Params
from lightweight.networks.validation import SLACK
from lightweight.pruning.groups import Layers, Method
from lightweight.pruning.importance import Kind
from lightweight.pruning.probe import SensitivityProbe


class SensitivityParams(Params):
    method: Method
    importance: Kind
    images: int = Field(ge=2)
    layers: Layers
    exclude: list[str]
    amount: float = Field(gt=0, lt=1)
    max_drop: float = Field(ge=0, lt=1)
    probes: int = Field(ge=1, le=50)


def scan(probe: SensitivityProbe, amount: float) -> list[dict[str, Any]]:
    """A row per unit: its layers, their parameters, the accuracy without a share of it, and what that costs."""
    modules = dict(probe.model.named_modules())
    rows = []
    for group, layers in probe.groups.layers.items():
        accuracy = probe.alone(group, amount)
        rows.append(
            {
                "layer": " ".join(layers),
                "parameters": sum(tensor.numel() for name in layers for tensor in modules[name].parameters()),
                "amount": amount,
                "val_accuracy": accuracy,
                "drop": probe.accuracy - accuracy,
            }
        )
    return rows


def largest(probe: SensitivityProbe, max_drop: float, probes: int) -> float:
    """The largest amount of all units that a binary search of [0, 1) finds to cost at most `max_drop`; 0 if none."""
    low, high = 0.0, 1.0
    for _ in range(probes):
        middle = (low + high) / 2
        good = probe.accuracy - probe.probe("", middle) <= max_drop + SLACK
        low, high = (middle, high) if good else (low, middle)
    return low
