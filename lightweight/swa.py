"""Stochastic weight averaging: the mean of the weights along a constant learning rate (Izmailov et al. 2018).

Training continues from a snapshot of the original, up to the same number of epochs. By torch.optim.swa_utils.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field
from torch import nn, optim
from torch.optim.swa_utils import SWALR, AveragedModel

from lightweight.batchnorm import reestimate_batchnorm
from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.checkpointing.session import Session
from lightweight.core.errors import InputError, bad_param
from lightweight.core.params import Params
from lightweight.networks.model_file import ModelFile
from lightweight.training.history import History
from lightweight.training.loop import train
from lightweight.training.original import snapshot_path
from lightweight.training.params import TrainingSettings, TrainParams

Row = TypeVar("Row")


class SwaParams(Params):
    """Describe section `swa` of params.yaml; without `start` nothing is averaged."""

    start: int | None = Field(ge=1)
    lr: float = Field(gt=0, le=10)
    anneal_epochs: int = Field(ge=0, le=10_000)


@dataclass(frozen=True)
class SwaResult:
    """Hold the model of averaged weights and the history of the epochs that were averaged."""

    model_file: ModelFile
    history: History

    def describe(self, train_params: TrainParams) -> str:
        """Describe in a phrase how many epochs were averaged, or why none was."""
        number = len(self.history.rows)
        if number:
            return f"mean of {number} epoch{'s' if number > 1 else ''}"
        key = "swa.start is null" if train_params.epochs else "train.epochs is 0"
        return f"Skipped, because {key}: the weights are those of the original"


def remaining_epochs(params: SwaParams, total: int, snapshots: int) -> range:
    """Return the epochs after `start` up to the `total` of the original; none without a start or a total.

    The original has kept snapshots of its last `snapshots` epochs, or of all epochs if `snapshots` is 0. Raises
    InputError for a start without a later epoch or without a snapshot.
    """
    if params.start is None or total == 0:
        return range(0)
    if params.start >= total:
        raise bad_param("swa.start", params.start, f"must be less than train.epochs = {total}")
    if snapshots and params.start <= total - snapshots:
        raise bad_param("swa.start", params.start, f"must be one of the last train.snapshots = {snapshots} epochs")
    return range(params.start + 1, total + 1)


def starting_file(params: SwaParams, train_params: TrainParams, snapshots: Path, original: Path) -> Path:
    """Return the path of the model file that training continues from: the snapshot of `start`, else the original.

    Raises InputError for an impossible start, and when training stopped before that epoch.
    """
    if params.start is None or not remaining_epochs(params, train_params.epochs, train_params.snapshots):
        return original
    path = snapshot_path(snapshots, params.start)
    if not path.exists():
        raise bad_param("swa.start", params.start, "training stopped before that epoch, see train.patience")
    return path


def average_weights(
    source: ModelFile, session: Session, params: SwaParams, train_params: TrainParams, teacher: nn.Module | None
) -> SwaResult:
    """Train `source` for the remaining epochs, average the weights after each, and re-estimate BatchNorm.

    Training follows section `train` but for its learning rate. Without remaining epochs nothing changes.
    """
    model, data = source.model, session.dataset
    epochs = remaining_epochs(params, train_params.epochs, train_params.snapshots)
    rate = initial_lr(source.notes, params.lr)
    settings = TrainingSettings(train_params, rate, partial(make_swa_schedule, params), teacher)
    history = session.checkpointer.track("history", History())
    rows = train(model, session, settings, epochs)
    history.record_and_log(average(model, rows, session.checkpointer), train_params.epochs, session.log)
    if history.rows:
        reestimate_batchnorm(model, data, len(data.train), train_params.batch_size, session.seed, session.augmentation)
    return SwaResult(replace(source, notes={}), history)


def initial_lr(notes: dict[str, Any], default: float) -> float:
    """Return the learning rate in the notes of a snapshot, else `default`. Raises InputError for an impossible rate."""
    lr = notes.get("lr", default)
    if isinstance(lr, bool) or not isinstance(lr, int | float) or not 0 < lr <= 10:
        raise InputError(f"The snapshot of swa.start notes the learning rate {lr!r}: must be a number up to 10")
    return lr


def make_swa_schedule(params: SwaParams, optimizer: optim.Optimizer, steps_per_epoch: int) -> SWALR:
    """Make the schedule that anneals the rate of `optimizer` to `params.lr` on a cosine, then keeps it.

    Annealing takes `anneal_epochs`. The schedule must be stepped after every optimizer step.
    """
    return SWALR(optimizer, swa_lr=params.lr, anneal_epochs=params.anneal_epochs * steps_per_epoch)


def average(model: nn.Module, epochs: Iterable[Row], checkpointer: Checkpointer) -> Iterator[Row]:
    """Average the weights of `model` after each row of a training run, yield the rows, and load the mean at the end.

    The BatchNorm statistics stay those of the last weights, so they must be re-estimated. A run without rows does not
    change the model.
    """
    averaged = checkpointer.track("average", AveragedModel(model))
    for row in epochs:
        averaged.update_parameters(model)
        yield row
    model.load_state_dict(averaged.module.state_dict())
