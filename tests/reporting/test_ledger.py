"""The ledger joins scores and timings, derives nothing but differences, and leaves out what was not measured."""

import pytest

from lightweight.core.variants import VARIANTS
from lightweight.reporting.ledger import COSTS, QUALITY, SIZES, ledger_text, make_ledger
from lightweight.reporting.ledger_rows import group_ledger
from tests.examples import made_up_latency, made_up_metrics

MORE = {
    "worst_class": "7", "worst_class_accuracy": 0.875, "calibration_error": 0.0123, "log_loss": 0.25,
    "zstd_bytes": 90, "entropy_bytes": 60, "ideal_bytes": 64,
}  # fmt: skip


@pytest.fixture
def scores() -> dict:
    return {name: own | MORE for name, own in made_up_metrics().items()}


@pytest.fixture
def latency() -> dict:
    measured = made_up_latency()
    own = dict(measured["optimized"])
    ratio = {"speedup": 3.0, "speedup_low": 2.5, "speedup_high": 3.5, "verdict": "faster"}
    own["batch_1"] = own["batch_1"] | {"against_exported": ratio, "peak_memory_bytes": 12_345_678}
    return measured | {"optimized": own}


def test_there_is_a_row_for_every_model_that_was_scored_or_timed(scores, latency):
    table = make_ledger(scores, latency)
    assert list(table.index) == ["original", "exported", *VARIANTS[1:]]
    assert list(table["timed_in"]) == ["PyTorch", "ONNX Runtime", None, None, None, "ONNX Runtime"]
    assert list(make_ledger(scores, {}).index) == list(VARIANTS)


def test_a_cell_is_the_number_that_was_measured_and_none_where_none_was(scores, latency):
    table = make_ledger(scores, latency)
    derived = {"difference", "container_bytes"}
    for name in VARIANTS:
        for column in {*QUALITY, *SIZES, *COSTS} - derived:
            assert table.loc[name, column] == scores[name][column]
    assert table.loc["exported", list({*QUALITY, *SIZES, *COSTS})].isna().all()
    assert table.loc["optimized", "batch_1_ms_p95"] == 2.4
    assert table.loc["optimized", "batch_1_speedup_low"] == 2.5, "against the original in the same runtime"
    assert table.loc["original", "batch_1_speedup"] is None
    assert table.loc["optimized", "batch_64_speedup"] is None
    assert table.loc["optimized", "batch_1_peak_memory_bytes"] == 12_345_678


def test_differences_are_against_the_original_and_the_container_is_what_is_no_weight(scores):
    table = make_ledger(scores, {})
    assert table.loc["optimized", "difference"] == pytest.approx(-0.04)
    assert table.loc["original", "difference"] == 0
    assert table.loc["pruned", "container_bytes"] == scores["pruned"]["size_bytes"] - 64


def test_scores_of_an_earlier_version_leave_cells_empty(latency):
    table = make_ledger(made_up_metrics(), latency)
    assert table["zstd_bytes"].isna().all()
    names = [row.name for group in group_ledger(table) for row in group.rows]
    assert "zstd" not in names
    assert "zlib" in names


def test_the_text_has_a_column_per_model_and_fits_120_characters(scores, latency):
    lines = ledger_text(make_ledger(scores, latency)).splitlines()
    assert lines[0].split() == ["original", "exported", *VARIANTS[1:]]
    assert max(map(len, lines)) <= 120
    cells = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    assert cells["difference"] == ["+0.00%", "-1.00%", "-2.00%", "-3.00%", "-4.00%"]
    assert cells["worst_class"] == ["7"] * 5
    assert cells["size_bytes"][-1] == "1,200,000"


def test_readers_see_units_intervals_and_definitions(scores, latency):
    groups = {group.name: {row.name: row for row in group.rows} for group in group_ledger(make_ledger(scores, latency))}
    assert list(groups) == ["quality", "bytes", "work", "batch 1", "batch 64"]
    assert groups["quality"]["95 % interval"].cells[0] == "92.00 to 97.00"
    assert groups["quality"]["gained / lost"].cells[-1] == "4 / 8"
    assert groups["quality"]["worst class (%)"].cells[-1] == "87.50 (7)"
    assert groups["batch 1"]["peak memory (MB)"].cells[-1] == "12.3"
    assert groups["quality"]["accuracy (%)"].cells[1] == "", "exported was not scored"
    assert all(row.definition for rows in groups.values() for row in rows.values())
