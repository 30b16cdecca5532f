"""A binary search for the most that can be pruned within a drop in accuracy; each trial is pruned and fine-tuned.

The number of trials is limited and not their time, because the result must not depend on the machine.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

from lightweight.checkpointing.session import Session
from lightweight.core.module_state import load_state
from lightweight.networks.model_file import ModelFile
from lightweight.networks.pruned_shapes import shrink_to
from lightweight.networks.validation import ACCURACY_SLACK, validate
from lightweight.pruning.allocation import GRID, Curve, allocate
from lightweight.pruning.amounts import counts_to_prune
from lightweight.pruning.groups import Cost, PruningGroups
from lightweight.training.history import History

Prune = Callable[[dict[str, float]], tuple[ModelFile, History]]  # from amounts by group to the pruned, fine-tuned model


class MaxDropSearch:
    """Search for the largest share of MACs or parameters that can be pruned within a drop in accuracy, in [0, 1].

    After `run`, `rows` holds a row per trial, and `history` the fine-tuning of the best one. The bounds of the search
    and the best model so far are part of the checkpoint.
    """

    def __init__(
        self,
        source: ModelFile,
        session: Session,
        curves: dict[str, Curve],
        groups: PruningGroups,
        kind: Cost,
    ) -> None:
        self.source, self.session, self.curves, self.groups, self.kind = source, session, curves, groups, kind
        self.rows: list[dict[str, Any]] = []
        self.low, self.high = 0.0, 1.0
        self.best: dict[str, Any] | None = None
        self.history = History()

    def run(self, prune: Prune, max_drop: float, trials: int) -> ModelFile:
        """Return the smallest model that loses at most `max_drop` accuracy on validation; the source if none does."""
        checkpointer, data = self.session.checkpointer, self.session.dataset
        _, before = validate(self.source.model, data, data.val)
        checkpointer.track("trials", self)
        self.high = min(self.high, 1 - self._cost(dict.fromkeys(self.groups.sizes, GRID[-1])))  # no amounts prune more
        while len(self.rows) < trials:
            level = (self.low + self.high) / 2
            amounts = allocate(self.curves, self._cost, 1 - level)
            pruned, history = prune(amounts)
            removed = 1 - self._cost(amounts)
            _, accuracy = validate(pruned.model, data, data.val)
            self.rows.append({"kind": "trial", "layer": "", "amount": removed, "val_accuracy": accuracy})
            if before - accuracy <= max_drop + ACCURACY_SLACK:
                self.low = max(level, removed)  # rounding to whole channels may remove more than `level`
                self.best = {"shapes": pruned.shapes, "state": pruned.model.state_dict()}
                self.history = history
            else:
                self.high = level
            checkpointer.save(f"trial {len(self.rows) + 1} of {trials}")
        return self.source if self.best is None else self._rebuild(self.best)

    def _cost(self, amounts: dict[str, float]) -> float:
        return self.groups.cost(counts_to_prune(self.groups, amounts, "layer", {}), self.kind)

    def _rebuild(self, best: dict[str, Any]) -> ModelFile:
        """Rebuild the best model from its shapes and weights, which may come from a checkpoint."""
        model = deepcopy(self.source.model)
        shrink_to(model, best["shapes"])
        load_state(model, best["state"])
        return replace(self.source, model=model, shapes=best["shapes"])

    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "bounds": [self.low, self.high],
            "best": self.best,
            "history": self.history.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, (self.low, self.high), self.best = list(state["rows"]), state["bounds"], state["best"]
        self.history.load_state_dict(state["history"])
