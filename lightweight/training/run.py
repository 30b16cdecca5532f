"""One training run: its resumable state, and the loop over the batches of an epoch."""

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.core.errors import InputError
from lightweight.core.module_state import load_state
from lightweight.data.augmentation import augment, random_numbers
from lightweight.data.dataset import Dataset, random_indices, steps_per_epoch
from lightweight.execution.determinism import derive_seed
from lightweight.execution.ranks import world_size
from lightweight.training.ema import make_ema
from lightweight.training.freezing import freeze
from lightweight.training.loss import batch_loss
from lightweight.training.optimizer import Stepper, make_optimizer
from lightweight.training.params import TrainingSettings
from lightweight.training.shards import DistributedGradient, ShardedGradient, check_shards

Batches = Iterator[tuple[Tensor, Tensor]]  # of images and labels


class TrainingRun:
    """Hold everything that changes during training: weights, their average, optimizer and schedule.

    Random numbers are functions of seed, epoch, step and image, and so no state. `state_dict` can be called between
    any two batches.
    """

    def __init__(self, model: nn.Module, dataset: Dataset, settings: TrainingSettings, epochs: range) -> None:
        params, lr = settings.params, settings.lr
        self.model, self.dataset, self.params, self.teacher = model, dataset, params, settings.teacher
        self.penalty = settings.penalty
        self.first, self.last = epochs.start, epochs[-1]
        self.epoch, self.step, self.lr = epochs.start, 0, lr
        self.total_loss = torch.zeros((), device=dataset.mean.device)
        self.frozen = freeze(model, params.freeze)
        self.stepper = Stepper(make_optimizer(model, params, lr), params, dataset.mean.device)
        shards = params.shards if params.exact else 1
        check_shards(shards, params.batch_size, len(dataset.train))
        self.steps = steps_per_epoch(dataset.train, params.batch_size, 2 * shards)
        sharded = params.exact or world_size() == 1
        self.gradient = ShardedGradient(model, shards) if sharded else DistributedGradient(model)
        self.schedule = settings.schedule(self.stepper.optimizer, self.steps)
        self.average = make_ema(model, params.ema) if params.ema else None

    def train_epoch(self, seed: int, checkpointer: Checkpointer, each_step: Callable[[float], None]) -> float:
        """Train for the rest of the current epoch and return the mean loss of the whole epoch.

        `each_step` receives the share of all epochs that is done, after each step. Raises InputError when the loss is
        not finite.
        """
        order = random_indices(len(self.dataset.train), len(self.dataset.train), seed)
        numbers = random_numbers(len(order), derive_seed(seed)) if self.params.augment.is_on else None
        if self.step == 0:
            self.total_loss.zero_()
        self.model.train()
        for module in self.frozen:
            module.eval()
        remaining = range(self.step, self.steps)
        batches = [order[step * self.params.batch_size :][: self.params.batch_size] for step in remaining]
        read = self.dataset.train.read([part for batch in batches for part in self.gradient.parts(batch)])
        for step in (progress := tqdm(remaining, f"epoch {self.epoch}", leave=False, unit="batch", disable=None)):
            backward = partial(self._backward, numbers, read)
            loss = self.gradient.compute(batches[step - remaining.start], derive_seed(seed, step), backward)
            if self.penalty:
                self.penalty()
            self.stepper.step()
            self.lr = self.stepper.optimizer.param_groups[0]["lr"]
            self.schedule.step()
            each_step((self.epoch - self.first + (step + 1) / self.steps) / (self.last + 1 - self.first))
            if self.average:
                self.average.update_parameters(self.model)
            self.total_loss += loss
            self.step = step + 1
            if not progress.disable:
                progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
            checkpointer.save_if_due(self.position())
        mean = self.total_loss.item() / self.steps
        check_finite(mean, "loss", self.epoch, self.lr)
        return mean

    def _backward(self, numbers: Tensor | None, read: Batches, indices: Tensor, weight: float) -> Tensor:
        """Add the gradients of the mean loss of some images, times `weight`, and return that loss without its graph.

        The images of the indices are the next that `read` yields.
        """
        images, labels = next(read)
        if numbers is not None:
            images = augment(images, self.params.augment, numbers[indices])
        loss = self._loss(self.dataset.normalize(images), labels) * weight
        self.stepper.backward(loss)
        return loss.detach()

    def position(self) -> str:
        """Describe the position in the run for the log, such as `epoch 7 of 10, batch 41 of 469`."""
        batch = f", batch {self.step + 1} of {self.steps}" if self.step else ""
        return f"epoch {self.epoch} of {self.last}{batch}" if self.epoch <= self.last else "the end"

    def state_dict(self) -> dict[str, Any]:
        return {
            "position": [self.epoch, self.step, self.lr],
            "total_loss": self.total_loss,
            **{name: part.state_dict() for name, part in self._parts().items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.step, self.lr = state["position"]
        self.total_loss.copy_(state["total_loss"])
        for name, part in self._parts().items():
            load_state(part, state[name])

    def _parts(self) -> dict[str, Any]:
        """Return the objects with a state of their own."""
        parts = {"model": self.model, "stepper": self.stepper, "schedule": self.schedule}
        return parts | ({"average": self.average} if self.average else {})

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of a batch. Raises InputError when the network returns something other than one tensor."""
        with self.stepper.autocast():
            logits = self.gradient.model(images)
            if not isinstance(logits, Tensor):
                kind = type(logits).__name__
                raise InputError(f"The network gives {kind} in training mode, not one tensor of logits")
            with torch.no_grad():
                target = self.teacher(images).float() if self.teacher else None
        return batch_loss(logits.float(), labels, self.params, target)

    def load_average(self) -> dict[str, Tensor] | None:
        """Load the average of the weights into the model, if there is one, and return the weights that it replaces."""
        if not self.average:
            return None
        weights = deepcopy(self.model.state_dict())
        self.model.load_state_dict(self.average.module.state_dict())
        return weights


def check_finite(loss: float, name: str, epoch: int, lr: float) -> None:
    """Raise InputError with the epoch and the learning rate when the loss is infinite or not a number."""
    if not math.isfinite(loss):
        raise InputError(f"The {name} became {loss} in epoch {epoch} at a learning rate of {lr:.3g}: must stay finite")
