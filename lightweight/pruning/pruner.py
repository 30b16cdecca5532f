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
from lightweight.networks.model_file import Checkpoint
from lightweight.networks.pruned_shapes import narrow, narrowed
from lightweight.networks.validation import SLACK, validate
from lightweight.pruning.allocation import GRID, Curve, allocate, measure, meet
from lightweight.pruning.groups import Amounts, Layers, Method, Units, amounts_by_unit, counts, find_units, spared
from lightweight.pruning.importance import Importance, Kind
from lightweight.pruning.probe import Prober, Settle
from lightweight.pruning.schedule import ScheduleParams, prune
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
    def _rises(cls, value: Any, info: ValidationInfo) -> Any:
        least = info.data.get("initial_sparsity", 0)
        if info.data.get("schedule") == "polynomial" and isinstance(value, float) and 0 < value < least:
            raise ValueError(f"must be at least initial_sparsity, {least}, from which the polynomial schedule rises")
        return value

    @field_validator("max_drop", "target_parameters", "target_macs")
    @classmethod
    def _is_spent(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("amount", "auto") != "auto":
            raise ValueError("needs amount: auto, which finds shares by layer for it")
        return value

    @field_validator("target_macs")
    @classmethod
    def _one_target(cls, value: float | None, info: ValidationInfo) -> float | None:
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
        source: Checkpoint,
        dataset: Dataset,
        params: PruneParams,
        seed: int,
        fine_tune: Callable[..., Iterable[Epoch]],
        settle: Settle,
        saved: Checkpointer,
        say: Callable[[str], None],
    ) -> None:
        self.source, self.dataset, self.params, self.seed = source, dataset, params, seed
        self.fine_tune, self.settle, self.saved, self.say = fine_tune, settle, saved, say
        self.importance = Importance(params.importance, dataset, params.images, seed)
        self.probes: list[dict[str, Any]] = []
        self.history = History()

    def run(self) -> Checkpoint:
        """The pruned model. An amount of 0 changes nothing. Raises InputError when a target cannot be met."""
        amount = self.params.amount
        spared(self.source.model, self.params.exclude, "prune")
        if amount == "auto":
            return self._spend()
        if isinstance(amount, dict):
            amount = amounts_by_unit(amount, self._units(deepcopy(self.source.model)))
        return self._prune(amount) if (any(amount.values()) if isinstance(amount, dict) else amount) else self.source

    def _spend(self) -> Checkpoint:
        params = self.params
        model = deepcopy(self.source.model)
        units = self._units(model)
        probed = (model, units, self.dataset, self.importance, params.images, self.seed, self.settle, self.saved)
        prober = Prober(*probed, total=1 + len(units.sizes) * len(GRID))
        curves = measure(prober)
        self.probes = [row | {"kind": "layer"} for row in prober.rows]
        units.release()
        if params.max_drop is not None:
            return self._search(params.max_drop, curves, units)
        kind = "macs" if params.target_macs else "parameters"
        return self._prune(meet(curves, units, kind, params.target_macs or params.target_parameters))

    def _search(self, max_drop: float, curves: dict[str, Curve], units: Units) -> Checkpoint:
        """The most that a binary search removes without losing more than `max_drop`; the source if that is nothing."""
        _, before = validate(self.source.model, self.dataset, self.dataset.val)
        kind = "macs" if self.params.method == "structured" else "parameters"

        def cost(amounts: dict[str, float]) -> float:
            return units.cost(counts(units, amounts, "layer", {}), kind)

        trials = self.saved.track("trials", Trials())
        trials.high = min(trials.high, 1 - cost(dict.fromkeys(units.sizes, GRID[-1])))  # more is out of reach
        while len(trials.rows) < self.params.trials:
            level = (trials.low + trials.high) / 2
            amounts = allocate(curves, cost, 1 - level)
            pruned = self._prune(amounts)
            _, accuracy = validate(pruned.model, self.dataset, self.dataset.val)
            trials.rows.append({"kind": "trial", "layer": "", "amount": 1 - cost(amounts), "val_accuracy": accuracy})
            if before - accuracy <= max_drop + SLACK:
                trials.low = max(level, 1 - cost(amounts))  # of whole channels, more than asked for
                trials.best = {"shapes": pruned.shapes, "state": pruned.model.state_dict()}
                trials.history = self.history
            else:
                trials.high = level
            self.saved.drop("history", "pruning", "training")
            self.saved.save(f"trial {len(trials.rows) + 1} of {self.params.trials}")
        self.probes += [row | {"probe": len(self.probes) + number} for number, row in enumerate(trials.rows, start=1)]
        self.history = trials.history
        if trials.best is None:
            return self.source
        model = deepcopy(self.source.model)
        narrow(model, trials.best["shapes"])
        model.load_state_dict(trials.best["state"])
        return replace(self.source, model=model, shapes=trials.best["shapes"])

    def _prune(self, amounts: Amounts) -> Checkpoint:
        """One whole pruning with its fine-tuning."""
        model = deepcopy(self.source.model)
        self.history = history = self.saved.track("history", History())

        def recover(number: int, each_step: Callable[[float], None]) -> None:
            last = number * self.params.epochs
            epochs = range(last - self.params.epochs + 1, last + 1)
            for _ in history.record(self.fine_tune(model, epochs=epochs, each_step=each_step)):
                self.say(history.line(last))

        prune(model, self._units(model), amounts, self.params, self.importance, recover, self.saved)
        return replace(self.source, model=model, shapes=narrowed(self.source.model, model))

    def _units(self, model: nn.Module) -> Units:
        params = self.params
        image = self.dataset.blank(1)
        return find_units(model, image, params.method, params.layers, params.exclude, "prune", params.round_to)


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
