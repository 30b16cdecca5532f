"""The average of weights along a constant learning rate generalises better than the last of them.

Stochastic weight averaging (Izmailov et al. 2018), by torch.optim.swa_utils.
"""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from pydantic import Field
from torch import nn, optim
from torch.optim.swa_utils import SWALR, AveragedModel

from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.core.errors import InputError, bad_param
from lightweight.core.params import Params

Row = TypeVar("Row")


class SwaParams(Params):
    start: int | None = Field(ge=1)
    lr: float = Field(gt=0, le=10)
    anneal_epochs: int = Field(ge=0, le=10_000)


def make_swa_schedule(params: SwaParams, optimizer: optim.Optimizer, steps_per_epoch: int) -> SWALR:
    """A cosine from the rate of `optimizer` to `params.lr` within `anneal_epochs`, constant from there; per step."""
    return SWALR(optimizer, swa_lr=params.lr, anneal_epochs=params.anneal_epochs * steps_per_epoch)


def remaining_epochs(params: SwaParams, total: int, snapshots: int) -> range:
    """The epochs after `start` up to the budget of the original; none without a start. Raises InputError.

    Of the original's epochs, the weights of the last `snapshots` are kept, of all if it is 0.
    """
    if params.start is None:
        return range(0)
    if params.start >= total:
        raise bad_param("swa.start", params.start, f"must be less than train.epochs = {total}")
    if snapshots and params.start <= total - snapshots:
        raise bad_param("swa.start", params.start, f"must be one of the last train.snapshots = {snapshots} epochs")
    return range(params.start + 1, total + 1)


def initial_lr(notes: dict[str, Any], rate: float) -> float:
    """The learning rate that a snapshot notes, else `rate`. Raises InputError for one that is none."""
    noted = notes.get("lr", rate)
    if isinstance(noted, bool) or not isinstance(noted, int | float) or not 0 < noted <= 10:
        raise InputError(f"the snapshot of swa.start notes the learning rate {noted!r}: must be a number up to 10")
    return noted


def average(model: nn.Module, epochs: Iterable[Row], checkpointer: Checkpointer | None = None) -> Iterator[Row]:
    """Pass on the rows of a training run; at its end `model` holds the mean of its weights after each row.

    BatchNorm statistics are those of the last weights, not of the mean: re-estimate them. A run without rows
    leaves the model as it is.
    """
    averaged = (checkpointer or Checkpointer()).track("average", AveragedModel(model))
    for row in epochs:
        averaged.update_parameters(model)
        yield row
    model.load_state_dict(averaged.module.state_dict())
