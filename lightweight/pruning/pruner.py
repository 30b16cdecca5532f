"""The pruner: prune a model by a given amount, or by amounts that meet a target for its size, MACs or accuracy."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from lightweight.checkpointing.session import Session
from lightweight.core.files import Table
from lightweight.networks.model_file import ModelFile
from lightweight.networks.pruned_shapes import changed_shapes
from lightweight.pruning.allocation import GRID, Curve, amounts_for_target, measure_curves
from lightweight.pruning.amounts import Amounts, amounts_by_group, counts_to_prune
from lightweight.pruning.groups import (
    Cost,
    PruningGroups,
    describe_skipped,
    describe_uncovered,
    excluded_layers,
    find_groups,
    sparsity_by_layer,
)
from lightweight.pruning.importance import Importance
from lightweight.pruning.max_drop import MaxDropSearch
from lightweight.pruning.params import PruneParams
from lightweight.pruning.probe import SensitivityProbe
from lightweight.pruning.schedule import PruningState, run_schedule
from lightweight.training.history import COLUMNS, FineTuner, History

MIN_SHARE_OF_AMOUNT = 0.9  # of the MACs, which channels removed in pairs of layers usually exceed
MAX_UNCOVERED = 0.1  # of the MACs, of which nothing is removed without a warning
PROBE_COLUMNS = ["probe", "kind", "layer", "amount", "val_accuracy"]


@dataclass(frozen=True)
class PruningResult:
    """Hold the pruned model, the history of its fine-tuning, the rows of all probes, and the sparsity by layer.

    A row of `sparsity` has the reason why the layer was spared, or the empty text.
    """

    model_file: ModelFile
    history: History
    probes: list[dict[str, Any]]
    sparsity: list[dict[str, Any]]

    def tables(self) -> dict[str, Table]:
        """Return the tables of sparsity by layer, fine-tuning and probes, by the names of their files."""
        return {
            "sparsity": (self.sparsity[0], self.sparsity),
            "prune": (COLUMNS, self.history.table()),
            "probes": (PROBE_COLUMNS, self.probes),
        }

    def describe(self) -> str:
        """Describe in a phrase how many weights are removed or zero."""
        pruned, weights = (sum(row[name] for row in self.sparsity) for name in ("pruned", "weights"))
        return f"{pruned:,} of {weights:,} weights are removed or zero"


class Pruner:
    """Prune copies of one model by section `prune`, and fine-tune them with `fine_tune`."""

    def __init__(self, source: ModelFile, params: PruneParams, session: Session, fine_tune: FineTuner) -> None:
        self.source, self.params, self.session, self.fine_tune = source, params, session, fine_tune
        self.importance = Importance(params.importance, session.dataset, params.images, session.seed)
        self.probes: list[dict[str, Any]] = []
        self.history = History()
        self.skipped: dict[str, str] = {}

    def run(self) -> PruningResult:
        """Prune the model and fine-tune it. An amount of 0 changes nothing.

        Raises InputError when a target cannot be met.
        """
        pruned = self._prune()
        rows = sparsity_by_layer(self.source.model, pruned.model)
        rows = [row | {"spared": self.skipped.get(row["layer"], "")} for row in rows]
        return PruningResult(pruned, self.history, self.probes, rows)

    def _prune(self) -> ModelFile:
        """Prune by the amount, the amounts by layer or the target that section `prune` gives."""
        amount = self.params.amount
        excluded_layers(self.source.model, self.params.exclude, "prune")
        if amount == "auto":
            return self._prune_to_target()
        if isinstance(amount, dict):
            amount = amounts_by_group(amount, self._groups(deepcopy(self.source.model)))
        is_zero = not any(amount.values()) if isinstance(amount, dict) else not amount
        return self.source if is_zero else self._prune_and_finetune(amount)

    def _prune_to_target(self) -> ModelFile:
        """Measure the sensitivity of each group, then prune by the amounts that meet the target of `amount: auto`."""
        params = self.params
        model = deepcopy(self.source.model)
        groups = self._groups(model)
        total = 1 + len(groups.sizes) * len(GRID)
        probe = SensitivityProbe(model, groups, self.session, self.importance, params.images, total)
        curves = measure_curves(probe)
        self.probes = [row | {"kind": "layer"} for row in probe.rows]
        groups.remove_hooks()
        if params.max_drop is not None:
            return self._prune_to_max_drop(params.max_drop, curves, groups)
        if params.target_macs is not None:
            return self._prune_and_finetune(amounts_for_target(curves, groups, "macs", params.target_macs))
        assert params.target_parameters is not None
        return self._prune_and_finetune(amounts_for_target(curves, groups, "parameters", params.target_parameters))

    def _prune_to_max_drop(self, max_drop: float, curves: dict[str, Curve], groups: PruningGroups) -> ModelFile:
        """Search for the most that can be pruned within `max_drop`; the trials of the search join the probes."""
        kind: Cost = "macs" if self.params.method == "structured" else "parameters"
        search = MaxDropSearch(self.source, self.session, curves, groups, kind)

        def prune(amounts: dict[str, float]) -> tuple[ModelFile, History]:
            pruned = self._prune_and_finetune(amounts)
            self.session.checkpointer.untrack("history", "pruning", "training")
            return pruned, self.history

        pruned = search.run(prune, max_drop, self.params.trials)
        self.probes += [row | {"probe": len(self.probes) + number} for number, row in enumerate(search.rows, start=1)]
        self.history = search.history
        return pruned

    def _prune_and_finetune(self, amounts: Amounts) -> ModelFile:
        """Run the whole schedule on a copy of the model, once."""
        model = deepcopy(self.source.model)
        session = self.session
        self.history = history = session.checkpointer.track("history", History())

        def fine_tune_round(number: int, each_step: Callable[[float], None]) -> None:
            history.record_and_log(self.fine_tune(model, number, each_step), number * self.params.epochs, session.log)

        groups = self._groups(model)
        if isinstance(amounts, float) and self.params.method == "structured":
            self._warn_of_small_effect(groups, amounts)
        state = PruningState(model, groups, self.params, self.importance)
        run_schedule(state, amounts, fine_tune_round, session.checkpointer)
        return replace(self.source, model=model, shapes=changed_shapes(self.source.model, model))

    def _groups(self, model: nn.Module) -> PruningGroups:
        image = self.session.dataset.blank(1)
        groups = find_groups(model, image, self.params, "prune", self.params.round_to)
        if groups.skipped and not self.skipped:
            self.session.log(f"prune  {self.params.method}  spared: {describe_skipped(groups.skipped)}")
            uncovered = groups.uncovered()
            if sum(share for share, _ in uncovered.values()) > MAX_UNCOVERED:
                self.session.log(f"warning: {describe_uncovered(uncovered)}")
        self.skipped = groups.skipped
        return groups

    def _warn_of_small_effect(self, groups: PruningGroups, amount: float) -> None:
        """Warn before the fine-tuning if this amount of every group removes a much smaller share of the MACs."""
        removed = 1 - groups.cost(counts_to_prune(groups, amount, "layer", {}), "macs")
        if removed < MIN_SHARE_OF_AMOUNT * amount:
            text = f"{amount:.0%} of the channels of every layer that is not spared are {removed:.0%} of the MACs"
            self.session.log(f"warning: prune.amount = {amount}: {text}")
