"""Sensitivity analysis: the drop in accuracy when one layer, or the whole network, is pruned without any training.

After Han et al. 2015 and Li et al. 2017; accuracy is measured on validation images after BatchNorm re-estimation.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from torch import nn

from lightweight.checkpointing.session import Session
from lightweight.core.params import Params
from lightweight.networks.validation import ACCURACY_SLACK
from lightweight.pruning.allocation import bisect
from lightweight.pruning.groups import LayerType, Method, find_groups
from lightweight.pruning.importance import Criterion, Importance, check_criterion
from lightweight.pruning.probe import SensitivityProbe

GROUP_COLUMNS = ["layer", "parameters", "amount", "val_accuracy", "drop"]


class SensitivityParams(Params):
    """Describe section `sensitivity` of params.yaml; without `amount` nothing is measured."""

    method: Method
    importance: Annotated[Criterion, AfterValidator(check_criterion)]
    images: int = Field(ge=2)
    layers: LayerType
    exclude: list[str]
    heads: bool
    amount: float | None = Field(gt=0, lt=1)
    max_drop: float = Field(ge=0, lt=1)
    probes: int = Field(ge=1, le=50)


@dataclass(frozen=True)
class SensitivityResult:
    """Hold a row per pruning group, the largest amount of all groups within `max_drop`, and the rows of all probes."""

    groups: list[dict[str, Any]]
    largest_amount: float
    probes: list[dict[str, Any]]

    def describe(self, max_drop: float) -> str:
        """Describe the most sensitive group, and the largest amount of all groups together within `max_drop`."""
        if not self.groups:
            return "off: sensitivity.amount is null"
        worst = max(self.groups, key=lambda row: row["drop"])
        most_sensitive = f"{worst['layer']} is the most sensitive (val accuracy drop {worst['drop']:.2%})"
        return f"{most_sensitive}  {self.largest_amount:.1%} of all can be pruned within a drop of {max_drop:.1%}"


def measure_sensitivity(model: nn.Module, params: SensitivityParams, session: Session) -> SensitivityResult:
    """Prune each group of a network alone by `amount`, then search for the largest amount of all groups together.

    An amount of null measures nothing.
    """
    if params.amount is None:
        return SensitivityResult([], 0.0, [])
    data = session.dataset
    groups = find_groups(model, data.blank(1), params, "sensitivity")
    importance = Importance(params.importance, data, params.images, session.seed)
    total = 1 + len(groups.sizes) + params.probes
    probe = SensitivityProbe(model, groups, session, importance, params.images, total)
    rows = scan_groups(probe, params.amount)
    amount = largest_amount(probe, params.max_drop, params.probes)
    return SensitivityResult(rows, amount, probe.rows)


def scan_groups(probe: SensitivityProbe, amount: float) -> list[dict[str, Any]]:
    """Prune each group alone by `amount`, and return a row of `GROUP_COLUMNS` per group.

    The columns are the names of the layers, the number of their parameters, the amount, the validation accuracy and its
    drop.
    """
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
    """Search [0, 1) for the largest amount of all groups together whose drop is at most `max_drop`; 0 if none."""
    low, _ = bisect(
        lambda amount: probe.accuracy - probe.measure("", amount) <= max_drop + ACCURACY_SLACK,
        low=0.0,
        high=1.0,
        steps=probes,
    )
    return low
