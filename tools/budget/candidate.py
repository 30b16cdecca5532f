"""A candidate of the search: how channels are chosen, how many go, and how what stays is quantized."""

from dataclasses import dataclass
from typing import Any, Literal

STEPS = 20  # the share that goes is a multiple of 1 / STEPS

Objective = Literal["bytes", "latency"]
Allocation = Literal["uniform", "auto"]  # one share of every layer, or shares by layer that `prune.amount: auto` finds

METHODS: dict[Objective, tuple[str, ...]] = {"bytes": ("int4", "static"), "latency": ("static", "none")}
GOALS: dict[Objective, str] = {"bytes": "target_parameters", "latency": "target_macs"}  # of prune.amount: auto
FREE = {"max_drop": None, "target_parameters": None, "target_macs": None}


@dataclass(frozen=True)
class Candidate:
    """Hold the method of quantization, the allocation of channels over the layers, and the steps that are pruned."""

    method: str
    allocation: Allocation
    steps: int

    @property
    def share(self) -> float:
        """Return the share that goes: of every layer's channels, or with `auto` of the network's parameters or MACs."""
        return self.steps / STEPS

    @property
    def name(self) -> str:
        """Name the experiment."""
        return f"budget-{self.method}-{self.allocation}-{100 * self.steps // STEPS}"

    def changes(self, params: dict[str, Any], objective: Objective) -> dict[str, Any]:
        """List the params that this candidate sets, by dotted key.

        Only removed channels make a file smaller or faster, so pruning is structured. For latency the channels that
        stay are a multiple of 8, as kernels take them.
        """
        prune: dict[str, Any] = FREE | {"method": "structured", "amount": self.share}
        if params["prune"]["importance"] == "obs":  # of single weights
            prune["importance"] = "l1"
        if params["prune"]["schedule"] == "polynomial":  # of masks
            prune |= {"schedule": "one_shot", "initial_sparsity": 0.0}
        if self.allocation == "auto" and self.steps:
            prune |= {"amount": "auto", GOALS[objective]: round(1 - self.share, 4)}
        if objective == "latency":
            prune["round_to"] = max(8, params["prune"]["round_to"])
        quantize = {"method": self.method, "max_drop": None}
        return {f"prune.{key}": value for key, value in prune.items()} | {
            f"quantize.{key}": value for key, value in quantize.items()
        }


def apply(params: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return the params with some of them changed, by dotted key `section.key`."""
    changed = {name: dict(value) if isinstance(value, dict) else value for name, value in params.items()}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        changed[section][name] = value
    return changed
