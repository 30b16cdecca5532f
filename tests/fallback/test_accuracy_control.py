"""Layers go back to float32 in the order of the errors that they make alone, until the loss is inside the budget."""

from collections.abc import Collection

import pytest

from lightweight.checkpointing import checkpointer as resuming
from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.fallback.accuracy_control import AccuracyControl
from tests.checkpointing.test_checkpointer import Inline, Interruption

ERRORS = {"a": 0.1, "b": 0.4, "c": 0.2, "d": 0.3}  # of each layer when it is the only one converted
CALLS: list[tuple[str, list[str]]] = []


def search(
    checkpointer: Checkpointer | None = None, min_accuracy: float = 0.9, stop: int | None = None, drops: bool = True
) -> tuple[AccuracyControl, list[str]]:
    """Search in files that lose as much accuracy as a fifth of the errors of their layers add up to."""
    CALLS.clear()

    def error(excluded: Collection[str]) -> float:
        if len(CALLS) == stop:
            raise Interruption
        return sum(value for name, value in ERRORS.items() if name not in excluded)

    def score(excluded: Collection[str]) -> tuple[float, float]:
        total = error(excluded)
        CALLS.append(("score", sorted(excluded)))
        return (1 - total / 5 if drops else 0.0), total

    def probe(excluded: Collection[str]) -> tuple[float, float]:
        total = error(excluded)
        CALLS.append(("probe", sorted(excluded)))
        return 0.5, total

    control = AccuracyControl(ERRORS, score, probe, checkpointer or Checkpointer())
    return control, control.search(min_accuracy)


def test_nothing_is_tried_when_the_whole_file_is_inside_the_budget():
    assert search(min_accuracy=0.8)[1] == []
    assert CALLS == [("score", [])]


@pytest.mark.parametrize(("min_accuracy", "excluded"), [(0.85, ["b"]), (0.92, ["b", "d"]), (1.0, ["b", "d", "c", "a"])])
def test_the_worst_go_first_and_no_more_than_needed(min_accuracy, excluded):
    control, layers = search(min_accuracy=min_accuracy)
    assert layers == excluded
    assert control.rows[-1]["val_accuracy"] >= min_accuracy
    assert [row["kind"] for row in control.rows] == ["all"] + ["only"] * 4 + ["excluded"] * len(excluded)
    assert [row["trial"] for row in control.rows] == list(range(1, 6 + len(excluded)))


def test_a_layer_is_judged_in_a_file_of_which_nothing_else_is_converted():
    search(min_accuracy=0.85)
    assert [excluded for kind, excluded in CALLS if kind == "probe"] == [
        sorted(set(ERRORS) - {name}) for name in ERRORS
    ]


def test_all_go_back_when_nothing_helps():
    assert search(min_accuracy=0.99, drops=False)[1] == ["b", "d", "c", "a"]


@pytest.mark.parametrize("stop", range(8))
def test_an_interrupted_search_goes_on_where_it_was(tmp_path, monkeypatch, stop):
    monkeypatch.setattr(resuming, "MAX_LOST_SECONDS", 0.0)
    log: list[str] = []
    expected = search(min_accuracy=0.97)[0].rows
    done = len(expected)
    with pytest.raises(Interruption):
        search(Checkpointer(tmp_path, "quantize", Inline(), log.append), 0.97, stop)
    control, _ = search(Checkpointer(tmp_path, "quantize", Inline(), log.append), 0.97)
    assert control.rows == expected
    assert len(CALLS) == done - stop
    assert log == ([f"Resuming quantize at trial {stop + 1}"] if stop else [])
