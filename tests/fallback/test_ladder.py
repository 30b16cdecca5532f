"""The ladder stops at the first step inside the budget, keeps what helps, and goes on where it was interrupted."""

from collections.abc import Mapping
from typing import Any

import pytest

from lightweight.checkpointing import checkpointer as resuming
from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.core.errors import InputError
from lightweight.core.files import Table
from lightweight.fallback.ladder import COLUMNS, START, STEPS, Ladder
from lightweight.quantization.params import QuantizeParams
from tests.checkpointing.test_checkpointer import Inline, Interruption
from tests.examples import quantize_params, quantizer, small_cnn, small_images

GAINS = {"percentile": -0.1, "entropy": 0.1, True: 0.05, "gptq": 0.2}  # of accuracy over the start, by value
CALLS: list[Mapping[str, Any]] = []


def climb(min_accuracy: float, stop: int | None = None, checkpointer: Checkpointer | None = None) -> tuple[Ladder, Any]:
    CALLS.clear()

    def attempt(settings: Mapping[str, Any]) -> tuple[float, float, int]:
        if len(CALLS) == stop:
            raise Interruption
        CALLS.append(settings)
        accuracy = 0.5 + sum(GAINS.get(value, 0) for value in settings.values())
        return accuracy, 1 - accuracy, 1000

    ladder = Ladder(attempt, checkpointer or Checkpointer(), lambda line: None)
    return ladder, ladder.climb(min_accuracy)


def test_the_plain_file_is_enough_where_it_is_inside_the_budget():
    assert climb(0.5)[1] == START
    assert len(CALLS) == 1


@pytest.mark.parametrize(("min_accuracy", "trials"), [(0.6, 3), (0.64, 4), (0.8, 5), (0.89, 6)])
def test_it_stops_at_the_first_step_inside_the_budget(min_accuracy, trials):
    ladder, settings = climb(min_accuracy)
    assert len(ladder.rows) == len(CALLS) == trials
    assert CALLS[-1] == settings
    assert ladder.rows[-1]["val_accuracy"] >= min_accuracy
    assert all(row["val_accuracy"] < min_accuracy for row in ladder.rows[:-1])


def test_a_step_that_moves_logits_away_is_not_kept():
    assert climb(1.0)[1] == {"calibration": "entropy", "equalize": True, "rounding": "gptq", "bias_correction": True}
    assert CALLS[2]["calibration"] == "entropy"
    assert all(settings["calibration"] != "percentile" for settings in CALLS[2:])


@pytest.mark.parametrize("stop", range(6))
def test_an_interrupted_ladder_goes_on_where_it_was(tmp_path, monkeypatch, stop):
    monkeypatch.setattr(resuming, "MAX_LOST_SECONDS", 0.0)
    expected = climb(1.0)[0].rows
    with pytest.raises(Interruption):
        climb(1.0, stop, Checkpointer(tmp_path, "quantize", Inline()))
    ladder, settings = climb(1.0, None, Checkpointer(tmp_path, "quantize", Inline()))
    assert ladder.rows == expected
    assert len(CALLS) == len(STEPS) - stop
    assert settings["rounding"] == "gptq"


def test_rows_hold_nothing_that_another_machine_would_change():
    assert all(list(row) == COLUMNS for row in climb(1.0)[0].rows)


def test_auto_needs_a_budget():
    with pytest.raises(ValueError, match="auto needs max_drop"):
        quantize_params("auto")
    assert isinstance(quantize_params("auto", max_drop=0.01), QuantizeParams)


def test_auto_makes_the_file_of_the_settings_that_it_chose(tiny_dataset):
    images, tables = small_images(tiny_dataset), dict[str, Table]()
    limits = {"max_logit_error": 1e9, "max_accuracy_drop": 1.0, "calibration_images": 20}
    auto = quantizer(small_cnn(), images, "auto", max_drop=1.0, **limits)
    chosen = auto.run(tables.update)
    assert [row["calibration"] for row in tables["trials"][1]] == ["minmax"]
    assert tables["trials"][1][0]["bytes"] == len(chosen.content)
    assert chosen.content == quantizer(small_cnn(), images, "static", **limits).run().content


@pytest.mark.slow
def test_auto_takes_layers_back_where_no_step_is_enough(tiny_dataset):
    images, tables = small_images(tiny_dataset), dict[str, Table]()
    limits = {"max_logit_error": 1e9, "max_accuracy_drop": 1.0, "calibration_images": 20}
    auto = quantizer(small_cnn(), images, "auto", max_drop=0.0, **limits)
    auto.minimum = lambda before, max_drop: 2.0  # nothing reaches it
    with pytest.raises(InputError, match=r"quantize\.max_drop = 0\.0: cannot be met"):
        auto.run(tables.update)
    assert len(tables["trials"][1]) == len(STEPS)
    assert tables["fallback"][1][-1]["kind"] == "excluded"
