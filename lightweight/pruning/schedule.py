"""Pruning removes the least important weights or channels at once, in rounds, or while the others are trained.

One-shot and iterative after Han et al. 2015, polynomial after Zhu and Gupta 2017.
"""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from torch import nn

from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.core.params import Params
from lightweight.pruning.groups import Amounts, PruningGroups, counts_to_prune
from lightweight.pruning.importance import Importance

RAMP = 0.6  # share of the fine-tuning in which the polynomial schedule prunes; the rest recovers
UPDATES = 50  # of the zeros on the way, at most one per step

Recover = Callable[[int, Callable[[float], None]], None]  # of the number of the round, and what `train` calls


class ScheduleParams(Params):
    scope: Literal["layer", "global"]
    epochs: int = Field(ge=0, le=10_000)
    schedule: Literal["one_shot", "iterative", "polynomial"]
    rounds: int = Field(ge=1, le=1000)
    initial_sparsity: float = Field(ge=0, lt=1)

    @field_validator("schedule")
    @classmethod
    def _has_steps(cls, value: str, info: ValidationInfo) -> str:
        if value == "polynomial" and info.data.get("epochs") == 0:
            raise ValueError("prunes while it trains: epochs must be at least 1")
        return value


class PruningState:
    """How far it is: the round, updates of the polynomial schedule within it, and what is pruned."""

    def __init__(self, model: nn.Module, groups: PruningGroups, params: ScheduleParams, importance: Importance) -> None:
        self.model, self.groups, self.params, self.importance = model, groups, params, importance
        self.round, self.updates = 0, 0

    def cut(self, amounts: Amounts) -> None:
        """Zero what the amounts ask for. The model stays in its mode of training."""
        training = [module for module in self.model.modules() if module.training]
        self.importance.prepare(self.model)
        scores = self.groups.scores(self.importance)
        self.model.zero_grad()
        self.groups.mask_least_important(counts_to_prune(self.groups, amounts, self.params.scope, scores), scores)
        for module in training:
            module.training = True

    def ramp(self, amounts: Amounts, done: float) -> None:
        """The polynomial schedule when a share of the fine-tuning is done."""
        due = min(UPDATES, int(done / RAMP * UPDATES))
        if due > self.updates:
            self.updates = due
            self.cut(self.step(amounts, due))
        else:
            self.groups.apply_masks()

    def step(self, amounts: Amounts, update: int) -> Amounts:
        """The amounts of the polynomial schedule at one of its updates."""
        left, start = (1 - update / UPDATES) ** 3, self.params.initial_sparsity
        return _each(amounts, lambda amount: amount + (min(start, amount) - amount) * left)

    def state_dict(self) -> dict[str, Any]:
        return {"position": [self.round, self.updates], "units": self.groups.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.round, self.updates = state["position"]
        self.groups.load_state_dict(state["units"])


def run_schedule(
    model: nn.Module,
    groups: PruningGroups,
    amounts: Amounts,
    params: ScheduleParams,
    importance: Importance,
    recover: Recover,
    checkpointer: Checkpointer | None = None,
) -> None:
    """Prune shares of the units in place and let the rest recover; nothing else changes.

    One shot prunes, then recovers once. `rounds` of both leave the same share of what was left each time, so that they
    compose to the amount. The polynomial schedule prunes within a single recovery: sparsity goes from
    `initial_sparsity` to the amount as a cubic that flattens out. A resumed run goes on where it was.
    """
    pruning = (checkpointer or Checkpointer()).track("pruning", PruningState(model, groups, params, importance))
    rounds = params.rounds if params.schedule == "iterative" else 1
    gradual = params.schedule == "polynomial"
    for number in range(max(1, pruning.round), rounds + 1):
        if pruning.round < number:
            if gradual:
                pruning.cut(pruning.step(amounts, 0))
            else:
                pruning.cut(
                    _each(
                        amounts,
                        lambda amount, left=rounds / number: amount if left == 1 else 1 - (1 - amount) ** (1 / left),
                    )
                )
                groups.remove_channels()
            pruning.round = number
        recover(number, (lambda done: pruning.ramp(amounts, done)) if gradual else lambda done: None)
        if gradual:
            pruning.ramp(amounts, 1.0)
            groups.remove_channels()
    groups.apply_masks()
    groups.remove_hooks()


def _each(amounts: Amounts, change: Callable[[float], float]) -> Amounts:
    return {name: change(amount) for name, amount in amounts.items()} if isinstance(amounts, dict) else change(amounts)
