"""A model is pruned by a given amount, or by the amounts that a budget of size, MACs or accuracy leaves to find.

A budget of accuracy is searched by whole trials, each pruned and fine-tuned. Their number is the limit, because a limit
of time would make the result depend on the machine.
"""

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator
from torch import nn

from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.dataset import Dataset
from lightweight.networks.model_file import ModelFile
from lightweight.networks.pruned_shapes import changed_shapes, shrink_to
from lightweight.networks.validation import SLACK, validate
from lightweight.pruning.allocation import GRID, Curve, allocate, amounts_for_target, measure_curves
from lightweight.pruning.groups import (
    Amounts,
    Layers,
    Method,
    PruningGroups,
    amounts_by_group,
    counts_to_prune,
    excluded_layers,
    find_groups,
)
from lightweight.pruning.importance import Importance, Kind
from lightweight.pruning.probe import BnUpdate, SensitivityProbe
from lightweight.pruning.schedule import ScheduleParams, run_schedule
from lightweight.training.history import Epoch, History

PROBES = ["probe", "kind", "layer", "amount", "val_accuracy"]

Share = Annotated[float, Field(ge=0, lt=1)]
Layer = Annotated[str, BeforeValidator(lambda name: str(name) if type(name) is int else name)]  # 4: of a Sequential


def _kind(value: Any) -> str:
    return "(auto)" if isinstance(value, str) else "(by layer)" if isinstance(value, dict) else "(share)"


class PruneParams(ScheduleParams):
    method: Method
    importance: Kind
    images: int = Field(ge=2)
    amount: Annotated[
        Annotated[Share, Tag("(share)")]
        | Annotated[Literal["auto"], Tag("(auto)")]
        | Annotated[dict[Layer, Share], Tag("(by layer)")],
        Discriminator(_kind),
    ]
    max_drop: Share | None
    target_parameters: Annotated[float, Field(gt=0, lt=1)] | None
    target_macs: Annotated[float, Field(gt=0, lt=1)] | None
    trials: int = Field(ge=1, le=100)
    layers: Layers
    exclude: list[str]
    round_to: int = Field(ge=1, le=1024)
    lr: float = Field(gt=0, le=10)
    distill: bool

    @field_validator("amount")
    @classmethod
    def _check_amount(cls, value: Any, info: ValidationInfo) -> Any:
        least = info.data.get("initial_sparsity", 0)
        if info.data.get("schedule") == "polynomial" and isinstance(value, float) and 0 < value < least:
            raise ValueError(f"must be at least initial_sparsity, {least}, from which the polynomial schedule rises")
        return value

    @field_validator("max_drop", "target_parameters", "target_macs")
    @classmethod
    def _check_limits(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("amount", "auto") != "auto":
            raise ValueError("needs amount: auto, which finds shares by layer for it")
        return value

    @field_validator("target_macs")
    @classmethod
    def _check_targets(cls, value: float | None, info: ValidationInfo) -> float | None:
        given = [*(info.data.get(name) for name in ("max_drop", "target_parameters")), value]
        number = sum(target is not None for target in given)
        if info.data.get("amount") == "auto" and number != 1:
            raise ValueError("amount: auto needs exactly one of max_drop, target_parameters and target_macs")
        if value is not None and info.data.get("amount") == "auto" and info.data.get("method") == "unstructured":
            raise ValueError("needs method: structured; zeros are multiplied like other weights")
        return value


class Pruner:
    """Prunes copies of one model; `fine_tune` is `train` with its settings, `settle` is for probes.

    `probes` are the rows of what was tried on the way, `history` that of the fine-tuning of the result.
    """

    def __init__(
        self,
        source: ModelFile,
        dataset: Dataset,
        params: PruneParams,
        seed: int,
        fine_tune: Callable[..., Iterable[Epoch]],
        bn_update: BnUpdate,
        checkpointer: Checkpointer,
        log: Callable[[str], None],
    ) -> None:
        self.source, self.dataset, self.params, self.seed = source, dataset, params, seed
        self.fine_tune, self.bn_update, self.checkpointer, self.log = fine_tune, bn_update, checkpointer, log
        self.importance = Importance(params.importance, dataset, params.images, seed)
        self.probes: list[dict[str, Any]] = []
        self.history = History()

    def run(self) -> ModelFile:
        """The pruned model. An amount of 0 changes nothing. Raises InputError when a target cannot be met."""
        amount = self.params.amount
        excluded_layers(self.source.model, self.params.exclude, "prune")
        if amount == "auto":
            return self._prune_to_target()
        if isinstance(amount, dict):
            amount = amounts_by_group(amount, self._units(deepcopy(self.source.model)))
        return (
            self._prune_and_finetune(amount)
            if (any(amount.values()) if isinstance(amount, dict) else amount)
            else self.source
        )

    def _prune_to_target(self) -> ModelFile:
        params = self.params
        model = deepcopy(self.source.model)
        groups = self._units(model)
        probed = (
            model,
            groups,
            self.dataset,
            self.importance,
            params.images,
            self.seed,
            self.bn_update,
            self.checkpointer,
        )
        probe = SensitivityProbe(*probed, total=1 + len(groups.sizes) * len(GRID))
        curves = measure_curves(probe)
        self.probes = [row | {"kind": "layer"} for row in probe.rows]
        groups.remove_hooks()
        if params.max_drop is not None:
            return self._prune_to_max_drop(params.max_drop, curves, groups)
        kind = "macs" if params.target_macs else "parameters"
        return self._prune_and_finetune(
            amounts_for_target(curves, groups, kind, params.target_macs or params.target_parameters)
        )

    def _prune_to_max_drop(self, max_drop: float, curves: dict[str, Curve], groups: PruningGroups) -> ModelFile:
        """The most that a binary search removes without losing more than `max_drop`; the source if that is nothing."""
        _, before = validate(self.source.model, self.dataset, self.dataset.val)
        kind = "macs" if self.params.method == "structured" else "parameters"

        def cost(amounts: dict[str, float]) -> float:
            return groups.cost(counts_to_prune(groups, amounts, "layer", {}), kind)

        trials = self.checkpointer.track("trials", Trials())
        trials.high = min(trials.high, 1 - cost(dict.fromkeys(groups.sizes, GRID[-1])))  # more is out of reach
        while len(trials.rows) < self.params.trials:
            level = (trials.low + trials.high) / 2
            amounts = allocate(curves, cost, 1 - level)
            pruned = self._prune_and_finetune(amounts)
            _, accuracy = validate(pruned.model, self.dataset, self.dataset.val)
            trials.rows.append({"kind": "trial", "layer": "", "amount": 1 - cost(amounts), "val_accuracy": accuracy})
            if before - accuracy <= max_drop + SLACK:
                trials.low = max(level, 1 - cost(amounts))  # of whole channels, more than asked for
                trials.best = {"shapes": pruned.shapes, "state": pruned.model.state_dict()}
                trials.history = self.history
            else:
                trials.high = level
            self.checkpointer.untrack("history", "pruning", "training")
            self.checkpointer.save(f"trial {len(trials.rows) + 1} of {self.params.trials}")
        self.probes += [row | {"probe": len(self.probes) + number} for number, row in enumerate(trials.rows, start=1)]
        self.history = trials.history
        if trials.best is None:
            return self.source
        model = deepcopy(self.source.model)
        shrink_to(model, trials.best["shapes"])
        model.load_state_dict(trials.best["state"])
        return replace(self.source, model=model, shapes=trials.best["shapes"])

    def _prune_and_finetune(self, amounts: Amounts) -> ModelFile:
        """One whole pruning with its fine-tuning."""
        model = deepcopy(self.source.model)
        self.history = history = self.checkpointer.track("history", History())

        def recover(number: int, each_step: Callable[[float], None]) -> None:
            last = number * self.params.epochs
            epochs = range(last - self.params.epochs + 1, last + 1)
            for _ in history.record(self.fine_tune(model, epochs=epochs, each_step=each_step)):
                self.log(history.line(last))

        run_schedule(model, self._units(model), amounts, self.params, self.importance, recover, self.checkpointer)
        return replace(self.source, model=model, shapes=changed_shapes(self.source.model, model))

    def _units(self, model: nn.Module) -> PruningGroups:
        params = self.params
        image = self.dataset.blank(1)
        return find_groups(model, image, params.method, params.layers, params.exclude, "prune", params.round_to)


class Trials:
    """The rows of the trials, the bounds between which the next one lies, and the best model so far."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.low, self.high = 0.0, 1.0
        self.best: dict[str, Any] | None = None
        self.history = History()

    def state_dict(self) -> dict[str, Any]:
        return vars(self) | {"history": self.history.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history.load_state_dict(state["history"])
        vars(self).update({name: value for name, value in state.items() if name != "history"})
