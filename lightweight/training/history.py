"""What training was like, a row per epoch: how long it takes, when to stop, and which epoch to keep."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from statistics import median
from typing import Any

from torch import nn
from tqdm import tqdm


@dataclass(frozen=True)
class Epoch:
    """One row of a history; `lr` is the rate of the last step, accuracies are shares in [0, 1]."""

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    val_accuracy: float


COLUMNS = [field.name for field in fields(Epoch)]


# Trains a network in place for a round, counted from 1, and gives a row per epoch; after each step it tells the third
# argument which share of the round is done.
FineTuner = Callable[[nn.Module, int, Callable[[float], None]], Iterable[Epoch]]


class History:
    """The rows of a run so far and the seconds that each took, which an interruption does not forget."""

    def __init__(self) -> None:
        self.rows: list[Epoch] = []
        self.seconds: list[float] = []
        self._begun, self._before = (
            0.0,
            0.0,
        )  # the clock at the start of the epoch, and what it took before a resumption

    def follow(self, epochs: Iterable[Epoch], last: int, log: Callable[[str], None]) -> None:
        """Record the rows to their end, and log each of them; `last` is the number of the last epoch."""
        for _ in self.record(epochs):
            log(self.line(last))

    def record(self, epochs: Iterable[Epoch], patience: int = 0) -> Iterator[Epoch]:
        """Pass rows on until validation accuracy has not risen for `patience` of them in a row; 0 never stops."""
        iterator = iter(epochs)
        self._begun = time.perf_counter()
        while not self._is_stale(patience) and (row := next(iterator, None)):
            self.rows.append(row)
            self.seconds.append(self._running())
            yield row
            self._begun, self._before = time.perf_counter(), 0.0

    def _is_stale(self, patience: int) -> bool:
        return bool(patience and self.rows and self.rows[-1].epoch - self.kept(patience).epoch >= patience)

    def kept(self, patience: int = 0) -> Epoch:
        """The row whose weights are kept: the last, or with early stopping the first of the most accurate."""
        return max(self.rows, key=lambda row: row.val_accuracy) if patience else self.rows[-1]

    def obsolete(self, snapshots: int, patience: int = 0) -> list[int]:
        """The epochs whose weights need not be kept: not the best nor among the newest `snapshots`; 0 keeps all."""
        best = self.kept(patience).epoch
        return [row.epoch for row in self.rows[:-snapshots] if row.epoch != best] if snapshots else []

    def line(self, last: int) -> str:
        """The newest row as one line of a log, with the time that the epochs up to `last` will take."""
        row, left = self.rows[-1], ""
        if row.epoch < last:
            left = f"  {tqdm.format_interval((last - row.epoch) * median(self.seconds))} left"
        return (
            f"epoch {row.epoch:>{len(str(last))}}/{last}  lr {row.lr:.2e}  loss {row.train_loss:.4f}  "
            f"val loss {row.val_loss:.4f}  val accuracy {row.val_accuracy:.2%}{left}"
        )

    def table(self) -> list[dict[str, Any]]:
        """The rows by column."""
        return [asdict(row) for row in self.rows]

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.table(), "seconds": self.seconds, "running": self._running()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.seconds = [Epoch(**row) for row in state["rows"]], list(state["seconds"])
        self._before = state["running"]

    def _running(self) -> float:
        return self._before + time.perf_counter() - self._begun
