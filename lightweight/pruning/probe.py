"""A probe prunes a model, looks at its accuracy, and brings it back."""

from collections.abc import Callable
from typing import Any

from torch import nn
from tqdm import tqdm

from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.dataset import Dataset, random_indices
from lightweight.networks.validation import validate
from lightweight.pruning.groups import Amounts, PruningGroups, counts_to_prune
from lightweight.pruning.importance import Importance

COLUMNS = ["probe", "layer", "amount", "val_accuracy"]
BnUpdate = Callable[[nn.Module], None]


class SensitivityProbe:
    """Prunes a model for a look at its accuracy, and brings it back; `checkpointer` resumes what is measured.

    It looks at `images` random validation images, after `settle` has fitted BatchNorm statistics to what is left.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: PruningGroups,
        dataset: Dataset,
        importance: Importance,
        images: int,
        seed: int,
        bn_update: BnUpdate,
        checkpointer: Checkpointer,
        total: int,
    ) -> None:
        self.model, self.groups, self.dataset, self.bn_update = model, groups, dataset, bn_update
        order = random_indices(len(dataset.val), images, seed)
        self.val = dataset.val.take(order.sort().values.to(dataset.mean.device))
        self.rows: list[dict[str, Any]] = []
        self.number, self.progress = 0, tqdm(total=total, desc="probes", leave=False, disable=None)  # on a terminal
        self.checkpointer = checkpointer
        checkpointer.track("probes", self)
        importance.prepare(model)
        self.scores = groups.scores(importance)
        model.zero_grad()
        self.state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self.accuracy = self.probe("", 0.0)

    def probe(self, name: str, amounts: Amounts, scope: str = "layer") -> float:
        """Accuracy in [0, 1] with shares of the units pruned; `name` stands for them in the row."""
        self.number += 1
        self.progress.update()
        if self.number > len(self.rows):
            self.groups.mask_least_important(counts_to_prune(self.groups, amounts, scope, self.scores), self.scores)
            self.bn_update(self.model)
            _, accuracy = validate(self.model, self.dataset, self.val)
            self.groups.clear_masks()
            self.model.load_state_dict(self.state)
            amount = amounts[name] if isinstance(amounts, dict) else amounts
            self.rows.append({"probe": self.number, "layer": name, "amount": amount, "val_accuracy": accuracy})
            self.checkpointer.save_if_due(f"probe {self.number + 1}")
        return self.rows[self.number - 1]["val_accuracy"]

    def alone(self, group: str, amount: float) -> float:
        """Accuracy with a share of one unit pruned."""
        return self.probe(group, dict.fromkeys(self.groups.sizes, 0.0) | {group: amount})

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = list(state["rows"])
