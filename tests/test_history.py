"""Early stopping waits exactly as long as it is told, and keeps the best."""

import pytest

from lightweight.history import COLUMNS, Epoch, choose, stop_early


def rows(*accuracies: float) -> list[Epoch]:
    return [Epoch(number, 0.004, 1.0, 1.0, accuracy) for number, accuracy in enumerate(accuracies, 1)]


@pytest.mark.parametrize(
    ("patience", "accuracies", "last"),
    [
        (1, (0.5, 0.6, 0.6, 0.7), 3),
        (2, (0.5, 0.6, 0.5, 0.7, 0.7, 0.6, 0.8), 6),
        (3, (0.5, 0.4, 0.3, 0.2, 0.9), 4),
    ],
)
def test_training_stops_after_exactly_patience_epochs_without_a_better_accuracy(patience, accuracies, last):
    run = iter(rows(*accuracies))
    assert [row.epoch for row in stop_early(run, patience)] == list(range(1, last + 1))
    assert next(run).epoch == last + 1


def test_patience_zero_never_stops_and_keeps_the_last_epoch():
    history = rows(0.9, 0.5, 0.4, 0.3, 0.2)
    assert list(stop_early(history, patience=0)) == history
    assert choose(history, patience=0) == history[-1]


def test_early_stopping_keeps_the_first_of_the_most_accurate_epochs():
    assert choose(rows(0.5, 0.7, 0.6, 0.7, 0.1), patience=3).epoch == 2


def test_the_line_of_an_epoch_shows_every_column():
    line = Epoch(3, 0.004, 1.25, 1.5, 0.875).line(last=10)
    assert line == "epoch  3/10  lr 4.00e-03  loss 1.2500  val loss 1.5000  val accuracy 87.50%"
    assert COLUMNS == ["epoch", "lr", "train_loss", "val_loss", "val_accuracy"]
