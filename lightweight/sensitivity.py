"""How much each layer matters: it is pruned alone, BatchNorm statistics are estimated again, nothing is trained.

The accuracy on validation by layer and share is what a budget is spent by (Han et al. 2015; Li et al. 2017).
"""

from typing import Any

import torch
from pydantic import Field
from torch import nn

from lightweight.batchnorm import update_batchnorm
from lightweight.data import Dataset
from lightweight.importance import Importance, Kind
from lightweight.params import Params
from lightweight.resuming import Checkpointer
from lightweight.units import Amounts, Layers, Method, Units, counts
from lightweight.validation import validate

BATCH_SIZE = 256  # of the images for BatchNorm statistics
COLUMNS = ["probe", "layer", "amount", "val_accuracy"]


class SensitivityParams(Params):
    method: Method
    importance: Kind
    images: int = Field(ge=2)
    layers: Layers
    exclude: list[str]
    amount: float = Field(gt=0, lt=1)
    max_drop: float = Field(ge=0, lt=1)
    probes: int = Field(ge=1, le=50)


class Prober:
    """Prunes a model for a look at its accuracy, and brings it back; every probe is kept, and resumed from `saved`.

    `images` random validation images are looked at, and as many training images give statistics and gradients.
    """

    def __init__(
        self,
        model: nn.Module,
        units: Units,
        dataset: Dataset,
        importance: Importance,
        images: int,
        seed: int,
        saved: Checkpointer,
    ) -> None:
        self.model, self.units, self.dataset, self.images, self.seed = model, units, dataset, images, seed
        order = torch.randperm(len(dataset.val), generator=torch.Generator().manual_seed(seed))[:images]
        self.val = dataset.val.take(order.sort().values.to(dataset.mean.device))
        self.rows: list[dict[str, Any]] = []
        self.number = 0
        self.saved = saved
        saved.track("probes", self)
        importance.prepare(model)
        self.scores = units.scores(importance)
        model.zero_grad()
        self.state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self.accuracy = self.probe("", 0.0)

    def probe(self, name: str, amounts: Amounts, scope: str = "layer") -> float:
        """Accuracy in [0, 1] with shares of the units pruned; `name` stands for them in the row."""
        self.number += 1
        if self.number > len(self.rows):
            self.units.zero(counts(self.units, amounts, scope, self.scores), self.scores)
            update_batchnorm(self.model, self.dataset, self.images, BATCH_SIZE, self.seed)
            _, accuracy = validate(self.model, self.dataset, self.val)
            self.units.reset()
            self.model.load_state_dict(self.state)
            amount = amounts[name] if isinstance(amounts, dict) else amounts
            self.rows.append({"probe": self.number, "layer": name, "amount": amount, "val_accuracy": accuracy})
            self.saved.tick(f"probe {self.number + 1}")
        return self.rows[self.number - 1]["val_accuracy"]

    def alone(self, unit: str, amount: float) -> float:
        """Accuracy with a share of one unit pruned."""
        return self.probe(unit, dict.fromkeys(self.units.sizes, 0.0) | {unit: amount})

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = list(state["rows"])


def scan(prober: Prober, amount: float) -> list[dict[str, Any]]:
    """A row per unit: its layers, their parameters, the accuracy without a share of it, and what that costs."""
    modules = dict(prober.model.named_modules())
    rows = []
    for unit, layers in prober.units.members.items():
        accuracy = prober.alone(unit, amount)
        rows.append(
            {
                "layer": " ".join(layers),
                "parameters": sum(tensor.numel() for name in layers for tensor in modules[name].parameters()),
                "amount": amount,
                "val_accuracy": accuracy,
                "drop": prober.accuracy - accuracy,
            }
        )
    return rows


def largest(prober: Prober, max_drop: float, probes: int) -> float:
    """The largest amount of all units that a binary search of [0, 1) finds to cost at most `max_drop`; 0 if none."""
    low, high = 0.0, 1.0
    for _ in range(probes):
        middle = (low + high) / 2
        good = prober.accuracy - prober.probe("", middle) <= max_drop
        low, high = (middle, high) if good else (low, middle)
    return low
