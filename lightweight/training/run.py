"""The state of a network in training, and the batches of one epoch."""

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.core.errors import InputError
from lightweight.dataset import Dataset, steps_per_epoch
from lightweight.training.augmentation import augment
from lightweight.training.ema import make_average
from lightweight.training.freezing import freeze
from lightweight.training.loss import batch_loss
from lightweight.training.optimizer import Stepper, make_optimizer
from lightweight.training.params import TrainingSettings


class TrainingRun:
    """Hold all that changes while a network is trained: weights, their average, optimizer, schedule, random numbers.

    `state_dict` and `load_state_dict` save and restore it between any two batches.
    """

    def __init__(self, model: nn.Module, dataset: Dataset, settings: TrainingSettings, epochs: range) -> None:
        params, lr = settings.params, settings.lr
        self.model, self.dataset, self.params, self.teacher = model, dataset, params, settings.teacher
        self.first, self.last = epochs.start, epochs[-1]
        self.number, self.step, self.lr = epochs.start, 0, lr
        self.loss = torch.zeros((), device=dataset.mean.device)
        self.generator = torch.Generator()
        self.frozen = freeze(model, params.freeze)
        self.stepper = Stepper(make_optimizer(model, params, lr), params, dataset.mean.device)
        self.steps = steps_per_epoch(dataset.train, params.batch_size)
        self.schedule = settings.schedule(self.stepper.optimizer, self.steps)
        self.average = make_average(model, params.ema) if params.ema else None

    def train_epoch(self, seed: int, checkpointer: Checkpointer, each_step: Callable[[float], None]) -> float:
        """Train for the rest of the current epoch and return its mean loss; `each_step` hears the share that is done.

        Raises InputError when the loss is no finite number.
        """
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
            checkpointer.save_if_due(self.position())
        mean = self.loss.item() / self.steps
        check_finite(mean, "loss", self.number, self.lr)
        return mean

    def _shuffle(self, seed: int) -> Tensor:
        """Draw the order of the training images (N,) from the seed of the epoch.

        At the first batch all random generators begin from that seed; in the middle of an epoch they go on.
        """
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.dataset.train), generator=generator)
        if self.step == 0:
            self.generator.set_state(generator.get_state())
            torch.manual_seed(seed)  # dropout draws from the global generator
            self.loss.zero_()
        return order

    def position(self) -> str:
        """Describe the position for the log, such as `epoch 7 of 10, batch 41 of 469`."""
        batch = f", batch {self.step + 1} of {self.steps}" if self.step else ""
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
        """Put the average of the weights into the model, if there is one, and return the weights that it replaces."""
        if not self.average:
            return None
        weights = deepcopy(self.model.state_dict())
        self.model.load_state_dict(self.average.module.state_dict())
        return weights


def check_finite(loss: float, name: str, epoch: int, lr: float) -> None:
    """Raise InputError when the loss is infinite or not a number."""
    if not math.isfinite(loss):
        raise InputError(f"the {name} became {loss} in epoch {epoch} at a learning rate of {lr:.3g}: must stay finite")
