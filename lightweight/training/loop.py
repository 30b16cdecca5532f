"""Training is a sequence of epochs over whole-tensor batches, each followed by a look at the validation split."""

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

    Order and augmentation depend on the seed and the number of the epoch only; the schedule moves with every step. With
    `ema`, the rows are about a moving average of the weights over all steps (Polyak and Juditsky 1992), which the model
    then holds. A resumed run yields the rows that are left. `each_step` receives the share of the epochs that is done.
    Raises InputError when the loss is no finite number.
    """
    if not epochs:
        return
    run = session.checkpointer.track("training", TrainingRun(model, session.dataset, settings, epochs))
    while run.number in epochs:
        epoch = run.number
        train_loss = run.train_epoch(session.seed * 1_000_003 + epoch, session.checkpointer, each_step)
        weights = run.show_average()
        val_loss, val_accuracy = validate(model, session.dataset, session.dataset.val)
        check_finite(val_loss, "validation loss", epoch, run.lr)
        yield Epoch(epoch, run.lr, train_loss, val_loss, val_accuracy)
        if weights:
            model.load_state_dict(weights)
        run.number, run.step = epoch + 1, 0
        session.checkpointer.save(run.position())
    run.show_average()


@dataclass(frozen=True)
class FineTune:
    """Train a network for `epochs` more, in rounds, on a cosine from `lr` to 0; the rest is as in section `train`.

    Pruning and quantization-aware training receive this as a `FineTuner` and never see the training loop.
    """

    session: Session
    params: TrainParams
    lr: float
    epochs: int
    teacher: nn.Module | None

    def __call__(self, model: nn.Module, round_: int, each_step: Callable[[float], None]) -> Iterator[Epoch]:
        """Train `model` in place for one round, counted from 1, and yield a row of the history per epoch."""
        schedule = partial(make_schedule, "cosine", self.params, self.epochs)
        settings = TrainingSettings(self.params, self.lr, schedule, self.teacher)
        last = round_ * self.epochs
        return train(model, self.session, settings, range(last - self.epochs + 1, last + 1), each_step)
