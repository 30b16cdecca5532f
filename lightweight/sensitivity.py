"""Sensitivity: the accuracy that a network loses where one layer alone is pruned, without any training.

After Han et al. 2015 and Li et al. 2017, by accuracy on validation images and with BatchNorm re-estimated.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import Field
from torch import nn

from lightweight.checkpointing.session import Session
from lightweight.core.params import Params
from lightweight.networks.validation import ACCURACY_SLACK
from lightweight.pruning.allocation import bisect
from lightweight.pruning.groups import Layers, Method, find_groups
from lightweight.pruning.importance import Importance, Kind
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


@dataclass(frozen=True)
class SensitivityResult:
    """Hold a row per pruning group, the largest amount of all groups within `max_drop`, and the rows of all probes."""

    groups: list[dict[str, Any]]
    largest_amount: float
    probes: list[dict[str, Any]]


def measure_sensitivity(model: nn.Module, params: SensitivityParams, session: Session) -> SensitivityResult:
    """Prune each group of a network alone by `amount`, then search the largest amount of all groups together."""
    data = session.dataset
    groups = find_groups(model, data.blank(1), params, "sensitivity")
    importance = Importance(params.importance, data, params.images, session.seed)
    total = 1 + len(groups.sizes) + params.probes
    probe = SensitivityProbe(model, groups, session, importance, params.images, total)
    rows = scan_groups(probe, params.amount)
    amount = largest_amount(probe, params.max_drop, params.probes)
    return SensitivityResult(rows, amount, probe.rows)


def scan_groups(probe: SensitivityProbe, amount: float) -> list[dict[str, Any]]:
    """Prune each group alone: a row of its layers, their parameters, the accuracy that is left, and what was lost."""
    modules = dict(probe.model.named_modules())
    rows = []
    for group, layers in probe.groups.layers.items():
        accuracy = probe.measure_group(group, amount)
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


def largest_amount(probe: SensitivityProbe, max_drop: float, probes: int) -> float:
    """Search [0, 1) for the largest amount of all groups together that costs at most `max_drop`; 0 if none does."""
    low, _ = bisect(
        lambda amount: probe.accuracy - probe.measure("", amount) <= max_drop + ACCURACY_SLACK,
        low=0.0,
        high=1.0,
        steps=probes,
    )
    return low
