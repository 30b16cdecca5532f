"""What training was like, a row per epoch: when to stop, and which epoch to keep."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields


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
