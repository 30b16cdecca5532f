"""Training is a sequence of epochs over whole-tensor batches, each followed by a look at the validation split."""

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.core.errors import InputError
from lightweight.dataset import Dataset, steps_per_epoch
from lightweight.networks.factory import validate_name
from lightweight.networks.validation import validate
from lightweight.training.augmentation import AugmentParams, augment
from lightweight.training.ema import make_average
from lightweight.training.freezing import freeze
from lightweight.training.history import Epoch
from lightweight.training.loss import LossParams, batch_loss
from lightweight.training.optimizer import OptimizationParams, Stepper, make_optimizer

Schedule = Callable[[optim.Optimizer, int], LRScheduler]  # of an optimizer and its steps per epoch


class TrainParams(OptimizationParams, LossParams):
    network: Annotated[str, AfterValidator(validate_name)]
    small_stem: bool
    weights: Annotated[str, Field(min_length=1)] | None
    freeze: list[str]
    epochs: int = Field(ge=0, le=10_000)
    batch_size: int = Field(ge=2, le=65_536)
    ema: float = Field(ge=0, lt=1)
    patience: int = Field(ge=0, le=10_000)
    snapshots: int = Field(ge=0)
    augment: AugmentParams

    @field_validator("epochs")
    @classmethod
    def _has_weights(cls, value: int, info: ValidationInfo) -> int:
        if value == 0 and info.data.get("weights", "") is None:
            raise ValueError("without an epoch of training, train.weights must name the weights")
        return value

    def files(self, root: Path) -> list[Path]:
        """The files relative to `root` that training begins with or learns from."""
        return [root / name for name in (self.weights, self.teacher) if name and (root / name).is_file()]


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
    checkpointer: Checkpointer | None = None,
    each_step: Callable[[float], None] = lambda done: None,
) -> Iterator[Epoch]:
    """Train `model` in place with a new optimizer, one yielded row per epoch; the schedule moves with every step.

    Order and augmentation depend on the seed and the epoch's number only. With `ema`, rows are of a moving average of
    the weights over all steps (Polyak and Juditsky 1992), which the model then holds. A resumed run yields what is left.
    `each_step` hears what share is done. Raises InputError when the loss is no number.
    """
    if not epochs:
        return
    checkpointer = checkpointer or Checkpointer()
    run = checkpointer.track("training", _Run(model, dataset, params, lr, schedule, teacher, epochs))
    while run.number in epochs:
        epoch = run.number
        train_loss = run.epoch(seed * 1_000_003 + epoch, checkpointer, each_step)
        weights = run.show_average()
        val_loss, val_accuracy = validate(model, dataset, dataset.val)
        _must_be_finite(val_loss, "validation loss", epoch, run.lr)
        yield Epoch(epoch, run.lr, train_loss, val_loss, val_accuracy)
        if weights:
            model.load_state_dict(weights)
        run.number, run.step = epoch + 1, 0
        checkpointer.save(run.where())
    run.show_average()


class _Run:
    """What changes while a model is trained: weights, their average, optimizer, schedule, random numbers, position."""

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        params: TrainParams,
        lr: float,
        schedule: Schedule,
        teacher: nn.Module | None,
        epochs: range,
    ) -> None:
        self.model, self.dataset, self.params, self.teacher = model, dataset, params, teacher
        self.first, self.last = epochs.start, epochs[-1]
        self.number, self.step, self.lr = epochs.start, 0, lr
        self.loss = torch.zeros((), device=dataset.mean.device)
        self.generator = torch.Generator()
        self.frozen = freeze(model, params.freeze)
        self.stepper = Stepper(make_optimizer(model, params, lr), params, dataset.mean.device)
        self.steps = steps_per_epoch(dataset.train, params.batch_size)
        self.schedule = schedule(self.stepper.optimizer, self.steps)
        self.average = make_average(model, params.ema) if params.ema else None

    def epoch(self, seed: int, checkpointer: Checkpointer, each_step: Callable[[float], None]) -> float:
        """Its mean loss, after the steps that a resumed run has not done."""
        order = self._shuffle(seed)
        self.model.train()
        for module in self.frozen:
            module.eval()
        left = range(self.step, self.steps)
        for step in (progress := tqdm(left, f"epoch {self.number}", leave=False, unit="batch", disable=None)):
            part = order[step * self.params.batch_size :][: self.params.batch_size].to(self.loss.device)
            images = augment(self.dataset.train.images[part], self.params.augment, self.generator)
            loss = self._loss(self.dataset.normalize(images), self.dataset.train.labels[part])
            self.stepper.step(loss)
            self.lr = self.stepper.optimizer.param_groups[0]["lr"]
            self.schedule.step()
            each_step((self.number - self.first + (step + 1) / self.steps) / (self.last + 1 - self.first))
            if self.average:
                self.average.update_parameters(self.model)
            self.loss += loss.detach()
            self.step = step + 1
            if not progress.disable:
                progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
            checkpointer.save_if_due(self.where())
        mean = self.loss.item() / self.steps
        _must_be_finite(mean, "loss", self.number, self.lr)
        return mean

    def _shuffle(self, seed: int) -> Tensor:
        """The order of the images; in the middle of an epoch, random numbers go on from where they were."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.dataset.train), generator=generator)
        if self.step == 0:
            self.generator.set_state(generator.get_state())
            torch.manual_seed(seed)  # dropout draws from the global generator
            self.loss.zero_()
        return order

    def where(self) -> str:
        batch = f", batch {self.step + 1} of {self.steps}" * (self.step > 0)
        return f"epoch {self.number} of {self.last}{batch}" if self.number <= self.last else "the end"

    def state_dict(self) -> dict[str, Any]:
        return {
            "position": [self.number, self.step, self.lr],
            "loss": self.loss,
            "augmentation": self.generator.get_state(),
            "random": torch.get_rng_state(),
            "random_gpu": torch.cuda.get_rng_state() if self.loss.is_cuda else None,
            **{name: thing.state_dict() for name, thing in self._parts().items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number, self.step, self.lr = state["position"]
        self.loss.copy_(state["loss"])
        self.generator.set_state(state["augmentation"])
        torch.set_rng_state(state["random"])
        if self.loss.is_cuda:
            torch.cuda.set_rng_state(state["random_gpu"])
        for name, thing in self._parts().items():
            thing.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        parts = {"model": self.model, "stepper": self.stepper, "schedule": self.schedule}
        return parts | ({"average": self.average} if self.average else {})

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        with self.stepper.arithmetic():
            logits = self.model(images)
            if not isinstance(logits, Tensor):
                kind = type(logits).__name__
                raise InputError(f"the network gives {kind} in training mode, not one tensor of logits")
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


def _must_be_finite(loss: float, name: str, epoch: int, lr: float) -> None:
    if not math.isfinite(loss):
        raise InputError(f"the {name} became {loss} in epoch {epoch} at a learning rate of {lr:.3g}: must stay finite")
