"""The training loop: train a network for some epochs, and validate it after each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from torch import nn

from lightweight.checkpointing.session import Session
from lightweight.networks.validation import validate
from lightweight.training.history import Epoch
from lightweight.training.optimizer import make_schedule
from lightweight.training.params import TrainingSettings, TrainParams
from lightweight.training.run import TrainingRun, check_finite


def train(
    model: nn.Module,
    session: Session,
    settings: TrainingSettings,
    epochs: range,
    each_step: Callable[[float], None] = lambda done: None,
) -> Iterator[Epoch]:
    """Train `model` in place with a new optimizer and yield a row of the history per epoch.

    The order of the images and their augmentation depend on the seed and the number of the epoch only. The schedule is
    stepped after every optimizer step; then `each_step` receives the share of `epochs` that is done. With `ema`, the
    model holds the moving average of its weights whenever a row is yielded, and the rows describe this average. A
    resumed run yields the remaining rows. Raises InputError when the loss is not finite.
    """
    if not epochs:
        return
    run = session.checkpointer.track("training", TrainingRun(model, session.dataset, settings, epochs))
    while run.epoch in epochs:
        epoch = run.epoch
        train_loss = run.train_epoch(session.seed * 1_000_003 + epoch, session.checkpointer, each_step)
        weights = run.load_average()
        val_loss, val_accuracy = validate(model, session.dataset, session.dataset.val)
        check_finite(val_loss, "validation loss", epoch, run.lr)
        yield Epoch(epoch, run.lr, train_loss, val_loss, val_accuracy)
        if weights:
            model.load_state_dict(weights)
        run.epoch, run.step = epoch + 1, 0
        session.checkpointer.save(run.position())
    run.load_average()


@dataclass(frozen=True)
class FineTune:
    """Fine-tune a network in rounds of `epochs`, on a cosine schedule from `lr` to 0, otherwise by section `train`.

    This is the `FineTuner` that pruning and quantization-aware training receive.
    """

    session: Session
    params: TrainParams
    lr: float
    epochs: int
    teacher: nn.Module | None
    penalty: Callable[[], None] | None = None  # adds to the gradients, before each optimizer step

    def __call__(self, model: nn.Module, round_: int, each_step: Callable[[float], None]) -> Iterator[Epoch]:
        """Train `model` in place for one round, counted from 1, and yield a row of the history per epoch."""
        schedule = partial(make_schedule, "cosine", self.params, self.epochs)
        settings = TrainingSettings(self.params, self.lr, schedule, self.teacher, self.penalty)
        last = round_ * self.epochs
        return train(model, self.session, settings, range(last - self.epochs + 1, last + 1), each_step)
