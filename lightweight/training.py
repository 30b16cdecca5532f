"""Training is a sequence of epochs over whole-tensor batches, each followed by a look at the validation split."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import nn, optim
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, OneCycleLR
from tqdm import tqdm

from lightweight.augmentation import AugmentParams, augment
from lightweight.data import Dataset, Split
from lightweight.errors import InputError
from lightweight.networks import known
from lightweight.params import Params


class TrainParams(Params):
    network: Annotated[str, AfterValidator(known)]
    epochs: int = Field(ge=1, le=10_000)
    batch_size: int = Field(ge=2, le=65_536)
    lr: float = Field(gt=0, le=10)
    weight_decay: float = Field(ge=0, lt=1)
    schedule: Literal["constant", "cosine", "onecycle"]
    label_smoothing: float = Field(ge=0, lt=1)
    patience: int = Field(ge=0, le=10_000)
    augment: AugmentParams


@dataclass(frozen=True)
class Epoch:
    """One row of a history; `lr` is the rate of the last step, accuracies are shares in [0, 1]."""

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    val_accuracy: float

    def line(self, last: int) -> str:
        return (
            f"epoch {self.epoch:>{len(str(last))}}/{last}  lr {self.lr:.2e}  loss {self.train_loss:.4f}  "
            f"val loss {self.val_loss:.4f}  val accuracy {self.val_accuracy:.2%}"
        )


COLUMNS = [field.name for field in fields(Epoch)]


def make_optimizer(model: nn.Module, params: TrainParams, lr: float) -> optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019)."""
    return optim.AdamW(model.parameters(), lr=lr, weight_decay=params.weight_decay, fused=True)


def make_schedule(optimizer: optim.Optimizer, name: str, steps: int) -> LRScheduler:
    """The learning rate over `steps` optimizer steps, its peak the rate that `optimizer` was given."""
    match name:
        case "constant":
            return ConstantLR(optimizer, factor=1.0)
        case "cosine":
            return CosineAnnealingLR(optimizer, T_max=steps)
        case "onecycle":  # Smith and Topin 2018
            return OneCycleLR(optimizer, optimizer.param_groups[0]["lr"], total_steps=steps, cycle_momentum=False)
        case _:
            raise AssertionError(name)


def train(
    model: nn.Module, dataset: Dataset, params: TrainParams, epochs: range, seed: int, *, lr: float, schedule: str
) -> Iterator[Epoch]:
    """`fit` with a new optimizer and one pass of the schedule over all `epochs`."""
    optimizer = make_optimizer(model, params, lr)
    steps = len(epochs) * steps_per_epoch(dataset, params)
    return fit(model, dataset, params, optimizer, make_schedule(optimizer, schedule, steps), epochs, seed)


def steps_per_epoch(dataset: Dataset, params: TrainParams) -> int:
    """A last batch of a single image is left out: it has no variance for BatchNorm."""
    full, rest = divmod(len(dataset.train), params.batch_size)
    return full + (rest > 1)


def fit(
    model: nn.Module,
    dataset: Dataset,
    params: TrainParams,
    optimizer: optim.Optimizer,
    schedule: LRScheduler,
    epochs: range,
    seed: int,
) -> Iterator[Epoch]:
    """Train `model` in place, one yielded row per epoch; the schedule moves with every step.

    An epoch's order and augmentation depend on the seed and its number alone, so that a run which starts at
    epoch 6 sees what an uninterrupted one sees there. Raises InputError when the loss is no longer a number.
    """
    for epoch in epochs:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        torch.manual_seed(seed * 1_000_003 + epoch)  # dropout draws from the global generator
        train_loss, lr = _train_epoch(model, dataset, params, optimizer, schedule, epoch, generator)
        val_loss, val_accuracy = validate(model, dataset, dataset.val)
        _must_be_finite(val_loss, "validation loss", epoch, lr)
        yield Epoch(epoch, lr, train_loss, val_loss, val_accuracy)


def _train_epoch(
    model: nn.Module,
    dataset: Dataset,
    params: TrainParams,
    optimizer: optim.Optimizer,
    schedule: LRScheduler,
    epoch: int,
    generator: torch.Generator,
) -> tuple[float, float]:
    """The mean loss, and the learning rate of the last step."""
    model.train()
    order = torch.randperm(len(dataset.train), generator=generator)
    steps = steps_per_epoch(dataset, params)
    total = torch.zeros((), device=dataset.mean.device)
    progress = tqdm(range(steps), desc=f"epoch {epoch}", unit="batch", leave=False, disable=None)  # on a terminal only
    for step in progress:
        part = order[step * params.batch_size :][: params.batch_size].to(total.device)
        images = augment(dataset.train.images[part], params.augment, generator)
        logits = model(dataset.normalize(images))
        loss = F.cross_entropy(logits, dataset.train.labels[part], label_smoothing=params.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        lr = optimizer.param_groups[0]["lr"]
        schedule.step()
        total += loss.detach()
        if not progress.disable:
            progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    mean = total.item() / steps
    _must_be_finite(mean, "loss", epoch, lr)
    return mean, lr


def _must_be_finite(loss: float, name: str, epoch: int, lr: float) -> None:
    if not math.isfinite(loss):
        raise InputError(f"the {name} became {loss} in epoch {epoch} at a learning rate of {lr:.3g}: must stay finite")


def stop_early(rows: Iterable[Epoch], patience: int) -> Iterator[Epoch]:
    """Rows until validation accuracy has not risen for `patience` epochs in a row; 0 never stops."""
    history = []
    for row in rows:
        history.append(row)
        yield row
        if patience and row.epoch - choose(history, patience).epoch >= patience:
            return


def choose(history: list[Epoch], patience: int) -> Epoch:
    """The row whose weights are kept: the last, or with early stopping the first of the most accurate."""
    return max(history, key=lambda row: row.val_accuracy) if patience else history[-1]


@torch.no_grad()
def validate(model: nn.Module, dataset: Dataset, split: Split, batch_size: int = 512) -> tuple[float, float]:
    """Mean cross-entropy and accuracy of `model` in evaluation mode."""
    model.eval()
    loss, correct = 0.0, 0
    for images, labels in dataset.batches(split, batch_size):
        logits = model(images)
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        correct += (logits.argmax(1) == labels).sum().item()
    return loss / len(split), correct / len(split)
