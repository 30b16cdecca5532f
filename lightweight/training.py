"""Training is a sequence of epochs over whole-tensor batches, each followed by a look at the validation split."""

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from lightweight.augmentation import AugmentParams, augment
from lightweight.data import Dataset, Split
from lightweight.distillation import LossParams, batch_loss
from lightweight.errors import InputError
from lightweight.freezing import freeze
from lightweight.history import Epoch
from lightweight.networks import known
from lightweight.optimization import OptimizationParams, Stepper, make_optimizer

Schedule = Callable[[optim.Optimizer, int], LRScheduler]  # of an optimizer and its steps per epoch


class TrainParams(OptimizationParams, LossParams):
    network: Annotated[str, AfterValidator(known)]
    small_stem: bool
    weights: Annotated[str, Field(min_length=1)] | None
    freeze: list[str]
    epochs: int = Field(ge=0, le=10_000)
    batch_size: int = Field(ge=2, le=65_536)
    ema: float = Field(ge=0, lt=1)
    patience: int = Field(ge=0, le=10_000)
    augment: AugmentParams

    @field_validator("epochs")
    @classmethod
    def _has_weights(cls, value: int, info: ValidationInfo) -> int:
        if value == 0 and info.data.get("weights", "") is None:
            raise ValueError("without an epoch of training, train.weights must name the weights")
        return value


def steps_per_epoch(dataset: Dataset, params: TrainParams) -> int:
    """A last batch of a single image is left out: it has no variance for BatchNorm. Raises InputError."""
    full, rest = divmod(len(dataset.train), params.batch_size)
    if not full + (rest > 1):
        raise InputError("the training split holds a single image: training needs two for BatchNorm")
    return full + (rest > 1)


def train(
    model: nn.Module,
    dataset: Dataset,
    params: TrainParams,
    epochs: range,
    seed: int,
    *,
    lr: float,
    schedule: Schedule,
    teacher: nn.Module | None = None,
) -> Iterator[Epoch]:
    """Train `model` in place with a new optimizer, one yielded row per epoch; the schedule moves with every step.

    An epoch's order and augmentation depend on the seed and its number alone, so that a run which starts at
    epoch 6 sees what an uninterrupted one sees there. With `ema`, rows are of the exponential moving average of the
    weights over all steps (Polyak and Juditsky 1992), which the model holds at every yield and at the end.
    Raises InputError when the loss is no longer a number.
    """
    if not epochs:
        return
    run = _Run(model, dataset, params, lr, schedule, teacher)
    for epoch in epochs:
        train_loss, last_lr = run.epoch(epoch, seed * 1_000_003 + epoch)
        weights = run.show_average()
        val_loss, val_accuracy = validate(model, dataset, dataset.val)
        _must_be_finite(val_loss, "validation loss", epoch, last_lr)
        yield Epoch(epoch, last_lr, train_loss, val_loss, val_accuracy)
        if weights and epoch != epochs[-1]:
            model.load_state_dict(weights)


class _Run:
    """What changes while a model is trained: its weights, their average, optimizer and schedule."""

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        params: TrainParams,
        lr: float,
        schedule: Schedule,
        teacher: nn.Module | None,
    ) -> None:
        self.model, self.dataset, self.params, self.teacher = model, dataset, params, teacher
        self.frozen = freeze(model, params.freeze)
        self.optimizer = make_optimizer(model, params, lr)
        self.stepper = Stepper(self.optimizer, params, dataset.mean.device)
        self.steps = steps_per_epoch(dataset, params)
        self.schedule = schedule(self.optimizer, self.steps)
        average = partial(_update_average, decay=params.ema)
        self.average = AveragedModel(model, multi_avg_fn=average, use_buffers=True) if params.ema else None

    def epoch(self, number: int, seed: int) -> tuple[float, float]:
        """The mean loss, and the learning rate of the last step."""
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # dropout draws from the global generator
        self.model.train()
        for module in self.frozen:
            module.eval()
        order = torch.randperm(len(self.dataset.train), generator=generator)
        total = torch.zeros((), device=self.dataset.mean.device)
        progress = tqdm(range(self.steps), f"epoch {number}", leave=False, unit="batch", disable=None)  # on a terminal
        for step in progress:
            part = order[step * self.params.batch_size :][: self.params.batch_size].to(total.device)
            images = augment(self.dataset.train.images[part], self.params.augment, generator)
            loss = self._loss(self.dataset.normalize(images), self.dataset.train.labels[part])
            self.stepper.step(loss)
            lr = self.optimizer.param_groups[0]["lr"]
            self.schedule.step()
            if self.average:
                self.average.update_parameters(self.model)
            total += loss.detach()
            if not progress.disable:
                progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        mean = total.item() / self.steps
        _must_be_finite(mean, "loss", number, lr)
        return mean, lr

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        with self.stepper.arithmetic():
            logits = self.model(images)
            if not isinstance(logits, Tensor):
                raise InputError(
                    f"the network gives {type(logits).__name__} in training mode, not one tensor of logits"
                )
            with torch.no_grad():
                target = self.teacher(images).float() if self.teacher else None
        return batch_loss(logits.float(), labels, self.params, target)

    def show_average(self) -> dict[str, Tensor] | None:
        """Put the average into the model, if there is one, and return the weights that it replaces."""
        if not self.average:
            return None
        weights = deepcopy(self.model.state_dict())
        self.model.load_state_dict(self.average.module.state_dict())
        return weights


@torch.no_grad()
def _update_average(average: list[Tensor], current: list[Tensor], updates: Tensor, decay: float) -> None:
    """Move the average towards the current weights and statistics; integers, such as indices, are copied.

    Short runs do not wait for the decay to forget the first weights: it begins low, as min(decay, (1 + n) / (10 + n)).
    """
    if not average[0].is_floating_point():
        torch._foreach_copy_(average, current)
        return
    number = int(updates)
    torch._foreach_lerp_(average, current, 1 - min(decay, (1 + number) / (10 + number)))


def _must_be_finite(loss: float, name: str, epoch: int, lr: float) -> None:
    if not math.isfinite(loss):
        raise InputError(f"the {name} became {loss} in epoch {epoch} at a learning rate of {lr:.3g}: must stay finite")


@torch.no_grad()
def validate(model: nn.Module, dataset: Dataset, split: Split, batch_size: int | None = None) -> tuple[float, float]:
    """Mean cross-entropy and accuracy of `model` in evaluation mode; by default at most 512 images of 64x64 at once."""
    model.eval()
    batch_size = batch_size or max(1, min(512, 512 * 64**2 // dataset.input_size**2))
    loss, correct = 0.0, 0
    for images, labels in dataset.batches(split, batch_size):
        logits = model(images)
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        correct += (logits.argmax(1) == labels).sum().item()
    return loss / len(split), correct / len(split)
