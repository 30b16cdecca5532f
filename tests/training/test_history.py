"""Early stopping waits for exactly `patience` epochs and keeps the best one, also when a run is interrupted."""

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from lightweight.training.history import COLUMNS, Epoch, History


def rows(*accuracies: float) -> list[Epoch]:
    return [Epoch(number, 0.004, 1.0, 1.0, accuracy) for number, accuracy in enumerate(accuracies, 1)]


def recorded(*accuracies: float, patience: int = 0) -> History:
    history = History()
    list(history.record(rows(*accuracies), patience))
    return history


@pytest.mark.parametrize(
    ("patience", "accuracies", "last"),
    [
        (1, (0.5, 0.6, 0.6, 0.7), 3),
        (2, (0.5, 0.6, 0.5, 0.7, 0.7, 0.6, 0.8), 6),
        (3, (0.5, 0.4, 0.3, 0.2, 0.9), 4),
    ],
)
@pytest.mark.parametrize("interrupted", [0, 1, 2, 3])
def test_training_stops_after_exactly_patience_epochs_without_a_better_accuracy(
    patience, accuracies, last, interrupted
):
    run = iter(rows(*accuracies))
    before, history = History(), History()
    for _, _ in zip(range(interrupted), before.record(run, patience), strict=False):
        pass
    history.load_state_dict(before.state_dict())
    list(history.record(run, patience))
    assert [row.epoch for row in history.rows] == list(range(1, last + 1))
    assert next(run).epoch == last + 1


def test_patience_zero_never_stops_and_keeps_the_last_epoch():
    history = recorded(0.9, 0.5, 0.4, 0.3, 0.2)
    assert history.rows == rows(0.9, 0.5, 0.4, 0.3, 0.2)
    assert history.kept_epoch() == history.rows[-1]


def test_early_stopping_keeps_the_first_of_the_most_accurate_epochs():
    assert recorded(0.5, 0.7, 0.6, 0.7, 0.1, patience=9).kept_epoch(patience=9).epoch == 2


@pytest.mark.parametrize(
    ("snapshots", "patience", "obsolete"),
    [(0, 0, []), (0, 9, []), (1, 0, [1, 2, 3]), (2, 0, [1, 2]), (9, 0, []), (1, 9, [1, 3]), (3, 9, [1])],
)
def test_the_newest_snapshots_and_the_kept_one_are_not_obsolete(snapshots, patience, obsolete):
    assert recorded(0.5, 0.7, 0.6, 0.7, patience=patience).obsolete_epochs(snapshots, patience) == obsolete


def test_the_table_has_the_columns_of_the_rows():
    assert COLUMNS == ["epoch", "lr", "train_loss", "val_loss", "val_accuracy"]
    assert recorded(0.5).table() == [dict(zip(COLUMNS, (1, 0.004, 1.0, 1.0, 0.5), strict=True))]


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(time, "perf_counter", lambda: now.seconds)
    return now


def slow(clock: SimpleNamespace, *seconds: float, first: int = 1) -> Iterator[Epoch]:
    for number, duration in enumerate(seconds, first):
        clock.seconds += duration
        yield Epoch(number, 0.004, 1.25, 1.5, 0.875)


def test_the_seconds_are_those_of_the_epochs_and_not_of_the_code_that_uses_the_rows(clock):
    history = History()
    for _ in history.record(slow(clock, 10, 20)):
        clock.seconds += 1000
    assert history.seconds == [10, 20]


def test_the_seconds_of_a_resumed_epoch_are_those_before_and_after_the_interruption(clock):
    before, after = History(), History()
    running = before.record(slow(clock, 10, 20))
    next(running)
    next(running)
    before.rows.pop(), before.seconds.pop()
    clock.seconds -= 13  # in the middle of epoch 2
    state = before.state_dict()
    clock.seconds += 1e6
    after.load_state_dict(state)
    list(after.record(slow(clock, 5, first=2)))
    assert after.seconds == [10, 7 + 5]


def test_the_line_of_an_epoch_shows_every_column_and_the_remaining_time(clock):
    history = History()
    running = history.record(slow(clock, 10, 30, 20, 20))
    for _ in range(3):
        next(running)
    line = "epoch  3/10  lr 4.00e-03  loss 1.2500  val loss 1.5000  val accuracy 87.50%"
    assert history.format_row(last=10) == f"{line}  02:20 left"
    next(running)
    assert history.format_row(last=4) == line.replace(" 3/10", "4/4")
