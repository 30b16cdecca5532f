"""The history of a training run: a row per epoch, by which training stops early and a best epoch is chosen."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from statistics import median
from typing import Any, Protocol

from torch import nn
from tqdm import tqdm


@dataclass(frozen=True)
class Epoch:
    """Hold the results of one epoch: losses, accuracy in [0, 1], and the learning rate of its last step."""

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    val_accuracy: float


COLUMNS = [field.name for field in fields(Epoch)]


class FineTuner(Protocol):
    """Represent the training that pruning and quantization ask for, without knowing the training loop."""

    def __call__(self, model: nn.Module, round_: int, each_step: Callable[[float], None], /) -> Iterable[Epoch]:
        """Train `model` in place for one round, counted from 1, and yield a row of the history per epoch.

        `each_step` receives the share of the round that is done after each optimizer step.
        """
        ...


class History:
    """Record the rows of a run and the seconds that each epoch took; a resumed run continues both."""

    def __init__(self) -> None:
        self.rows: list[Epoch] = []
        self.seconds: list[float] = []
        self._started = 0.0  # the clock at the start of the epoch, or at the resumption within it
        self._seconds_before = 0.0  # the seconds that the epoch took before the resumption

    def record(self, epochs: Iterable[Epoch], patience: int = 0) -> Iterator[Epoch]:
        """Record and yield the rows, with early stopping unless `patience` is 0.

        The rows end when validation accuracy has not risen for `patience` epochs.
        """
        iterator = iter(epochs)
        self._started = time.perf_counter()
        while not self._is_stale(patience) and (row := next(iterator, None)):
            self.rows.append(row)
            self.seconds.append(self._elapsed())
            yield row
            self._started, self._seconds_before = time.perf_counter(), 0.0

    def record_and_log(self, epochs: Iterable[Epoch], last: int, log: Callable[[str], None]) -> None:
        """Record all rows and log a line for each; `last` is the number of the last epoch."""
        for _ in self.record(epochs):
            log(self.format_row(last))

    def _is_stale(self, patience: int) -> bool:
        """Return whether validation accuracy has not risen for `patience` epochs; never with a patience of 0."""
        return bool(patience and self.rows and self.rows[-1].epoch - self.kept_epoch(patience).epoch >= patience)

    def kept_epoch(self, patience: int = 0) -> Epoch:
        """Return the row whose weights are kept: the last, or with early stopping the first of the most accurate."""
        return max(self.rows, key=lambda row: row.val_accuracy) if patience else self.rows[-1]

    def obsolete_epochs(self, snapshots: int, patience: int = 0) -> list[int]:
        """List the epochs whose weights are no longer needed: neither the kept one nor among the newest `snapshots`.

        With `snapshots` 0 all epochs are needed.
        """
        kept = self.kept_epoch(patience).epoch
        return [row.epoch for row in self.rows[:-snapshots] if row.epoch != kept] if snapshots else []

    def format_row(self, last: int) -> str:
        """Format the newest row as a line of a log, with the time that the epochs up to `last` will take."""
        row, remaining = self.rows[-1], ""
        if row.epoch < last:
            remaining = f"  {tqdm.format_interval((last - row.epoch) * median(self.seconds))} left"
        return (
            f"epoch {row.epoch:>{len(str(last))}}/{last}  lr {row.lr:.2e}  loss {row.train_loss:.4f}  "
            f"val loss {row.val_loss:.4f}  val accuracy {row.val_accuracy:.2%}{remaining}"
        )

    def table(self) -> list[dict[str, Any]]:
        """Return the rows as dicts by `COLUMNS`."""
        return [asdict(row) for row in self.rows]

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.table(), "seconds": self.seconds, "elapsed": self._elapsed()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.seconds = [Epoch(**row) for row in state["rows"]], list(state["seconds"])
        self._seconds_before = state["elapsed"]

    def _elapsed(self) -> float:
        """Return the seconds that the current epoch has taken so far, before and after a resumption."""
        return self._seconds_before + time.perf_counter() - self._started
