"""Stochastic weight averaging: the mean of the weights along a constant learning rate (Izmailov et al. 2018).

By torch.optim.swa_utils. Training goes on from a snapshot of the original, up to the same number of epochs.
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
    start: int | None = Field(ge=1)
    lr: float = Field(gt=0, le=10)
    anneal_epochs: int = Field(ge=0, le=10_000)


@dataclass(frozen=True)
class SwaResult:
    """Hold the model of averaged weights and the history of the epochs that were averaged."""

    model_file: ModelFile
    history: History


def remaining_epochs(params: SwaParams, total: int, snapshots: int) -> range:
    """List the epochs after `start` up to the `total` of the original; none without a start.

    The weights of the last `snapshots` epochs of the original are kept, of all epochs if it is 0. Raises InputError for
    a start after which no epoch is left, or whose weights are not kept.
    """
    if params.start is None:
        return range(0)
    if params.start >= total:
        raise bad_param("swa.start", params.start, f"must be less than train.epochs = {total}")
    if snapshots and params.start <= total - snapshots:
        raise bad_param("swa.start", params.start, f"must be one of the last train.snapshots = {snapshots} epochs")
    return range(params.start + 1, total + 1)


def starting_file(params: SwaParams, snapshots: Path, original: Path) -> Path:
    """Name the file of weights that averaging goes on from: the snapshot of `start`, or the original without a start.

    Raises InputError when training stopped before that epoch.
    """
    if params.start is None:
        return original
    path = snapshot_path(snapshots, params.start)
    if not path.exists():
        raise bad_param("swa.start", params.start, "training stopped before that epoch, see train.patience")
    return path


def average_weights(
    source: ModelFile, session: Session, params: SwaParams, train_params: TrainParams, teacher: nn.Module | None
) -> SwaResult:
    """Train `source` for the remaining epochs by section `train`, average its weights, and re-estimate BatchNorm.

    Without remaining epochs the weights stay as they are.
    """
    model, data = source.model, session.dataset
    epochs = remaining_epochs(params, train_params.epochs, train_params.snapshots)
    rate = initial_lr(source.notes, params.lr)
    settings = TrainingSettings(train_params, rate, partial(make_swa_schedule, params), teacher)
    history = session.checkpointer.track("history", History())
    rows = train(model, session, settings, epochs)
    history.follow(average(model, rows, session.checkpointer), train_params.epochs, session.log)
    if history.rows:
        reestimate_batchnorm(model, data, len(data.train), train_params.batch_size, session.seed)
    return SwaResult(replace(source, notes={}), history)


def initial_lr(notes: dict[str, Any], default: float) -> float:
    """Return the learning rate that a snapshot notes, else `default`. Raises InputError for an impossible rate."""
    noted = notes.get("lr", default)
    if isinstance(noted, bool) or not isinstance(noted, int | float) or not 0 < noted <= 10:
        raise InputError(f"the snapshot of swa.start notes the learning rate {noted!r}: must be a number up to 10")
    return noted


def make_swa_schedule(params: SwaParams, optimizer: optim.Optimizer, steps_per_epoch: int) -> SWALR:
    """Anneal the rate of `optimizer` to `params.lr` on a cosine in `anneal_epochs`, then keep it; per step."""
    return SWALR(optimizer, swa_lr=params.lr, anneal_epochs=params.anneal_epochs * steps_per_epoch)


def average(model: nn.Module, epochs: Iterable[Row], checkpointer: Checkpointer) -> Iterator[Row]:
    """Pass on the rows of a training run; at the end `model` holds the mean of its weights after each row.

    BatchNorm statistics are those of the last weights and not of the mean, so they must be re-estimated. A run without
    rows leaves the model as it is.
    """
    averaged = checkpointer.track("average", AveragedModel(model))
    for row in epochs:
        averaged.update_parameters(model)
        yield row
    model.load_state_dict(averaged.module.state_dict())
