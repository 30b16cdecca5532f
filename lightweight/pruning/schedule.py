"""The pruning schedule: weights or channels are pruned at once, in rounds, or step by step during fine-tuning.

One-shot and iterative schedules are after Han et al. 2015, the polynomial schedule is after Zhu and Gupta 2017.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from torch import nn

from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.pruning.amounts import Amounts, counts_to_prune
from lightweight.pruning.groups import PruningGroups
from lightweight.pruning.importance import Importance
from lightweight.pruning.params import ScheduleParams
from lightweight.reconstruction.repair import repair

RAMP = 0.6  # the share of the fine-tuning in which the polynomial schedule prunes; the network recovers in the rest
UPDATES = 50  # of the masks by the polynomial schedule, at most one per step

FineTuneRound = Callable[[int, Callable[[float], None]], None]  # receives the number of the round and `each_step`


class PruningState:
    """Hold the progress of a schedule: the round, the updates of the masks within it, and the masks themselves."""

    def __init__(self, model: nn.Module, groups: PruningGroups, params: ScheduleParams, importance: Importance) -> None:
        self.model, self.groups, self.params, self.importance = model, groups, params, importance
        self.round, self.updates = 0, 0

    def update_masks(self, amounts: Amounts) -> None:
        """Score weights or channels anew and set the least important ones to zero; others may make up for it.

        Every module stays in training or evaluation mode, although scoring evaluates the network.
        """
        training = [module for module in self.model.modules() if module.training]
        self.importance.prepare(self.model)
        scores = self.groups.scores(self.importance)
        self.model.zero_grad()
        with self._repairing():
            self.groups.mask_least_important(counts_to_prune(self.groups, amounts, self.params.scope, scores), scores)
        for module in training:
            module.training = True

    @contextmanager
    def _repairing(self) -> Iterator[None]:
        """Repair the network after what is pruned in this context, with `repair` or by the criterion `obs`."""
        if not self.params.repair and self.importance.criterion != "obs":
            yield
            return
        before = deepcopy(self.model).eval()
        yield
        repair(self.model, before, self.importance.batches)

    def follow_polynomial(self, amounts: Amounts, done: float) -> None:
        """Apply the masks, and update them first if an update is due after the share `done` of the fine-tuning."""
        due = min(UPDATES, int(done / RAMP * UPDATES))
        if due > self.updates:
            self.updates = due
            self.update_masks(self.polynomial_amounts(amounts, due))
        else:
            self.groups.apply_masks()

    def polynomial_amounts(self, amounts: Amounts, update: int) -> Amounts:
        """Compute the amounts at one of the updates: a cubic from `initial_sparsity` to `amounts`.

        This is equation 1 of Zhu and Gupta 2017.
        """
        remaining, start = (1 - update / UPDATES) ** 3, self.params.initial_sparsity
        return _map_amounts(amounts, lambda amount: amount + (min(start, amount) - amount) * remaining)

    def iterative_amounts(self, amounts: Amounts, number: int, rounds: int) -> Amounts:
        """Compute the amounts after a round: each round prunes the same share of what the round before has kept."""
        if number == rounds:
            return amounts
        return _map_amounts(amounts, lambda amount: 1 - (1 - amount) ** (1 / (rounds / number)))

    def state_dict(self) -> dict[str, Any]:
        return {"position": [self.round, self.updates], "groups": self.groups.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.round, self.updates = state["position"]
        self.groups.load_state_dict(state["groups"])


def run_schedule(state: PruningState, amounts: Amounts, fine_tune: FineTuneRound, checkpointer: Checkpointer) -> None:
    """Prune the given amounts of the groups in place, fine-tune the network, and leave no mask or hook behind.

    One-shot prunes, then fine-tunes once. Iterative does both in `rounds`, which compose to the amounts. Polynomial
    prunes during a single fine-tuning. Nothing but fine-tuning and repair changes what is not pruned. A resumed run
    continues from the state in its checkpoint.
    """
    checkpointer.track("pruning", state)
    params, groups = state.params, state.groups
    rounds = params.rounds if params.schedule == "iterative" else 1
    polynomial = params.schedule == "polynomial"

    def each_step(done: float) -> None:
        if polynomial:
            state.follow_polynomial(amounts, done)

    for number in range(max(1, state.round), rounds + 1):
        if state.round < number:
            if polynomial:
                state.update_masks(state.polynomial_amounts(amounts, 0))
            else:
                state.update_masks(state.iterative_amounts(amounts, number, rounds))
                groups.remove_channels()
            state.round = number
        fine_tune(number, each_step)
        if polynomial:
            state.follow_polynomial(amounts, 1.0)
            groups.remove_channels()
    groups.apply_masks()
    groups.remove_hooks()


def _map_amounts(amounts: Amounts, change: Callable[[float], float]) -> Amounts:
    return {name: change(amount) for name, amount in amounts.items()} if isinstance(amounts, dict) else change(amounts)
