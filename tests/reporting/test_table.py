"""The table shows every metric of every variant in its unit, and fits where it is shown."""

import pandas as pd
import pytest

from lightweight.core.files import read_json
from lightweight.core.variants import VARIANTS
from lightweight.reporting.results import read_latency, read_scores
from lightweight.reporting.table import comparison, markdown, plain_text
from tests.contract import ROOT
from tools.recipe.recipe import timings

RESULTS = sorted((ROOT / "recipes/results").glob("*.json"))


@pytest.fixture
def metrics() -> dict:
    scores = {
        "accuracy": 0.975,
        "accuracy_low": 0.95,
        "accuracy_high": 0.99,
        "images": 1200,
        "gained": 0,
        "lost": 0,
        "mcnemar_p": 1.0,
        "size_bytes": 25_080_000,
        "compressed_bytes": 23_000_000,
        "parameters": 6_270_000,
        "nonzero_parameters": 6_269_999,
        "macs": 12_345_678,
        "int8_mac_share": 0.0,
    }
    changed = {"accuracy": 0.97, "gained": 3, "lost": 9, "mcnemar_p": 0.14599, "size_bytes": 6_270_000}
    changed |= {"int8_mac_share": 0.501}
    return {name: scores | (changed if name == "optimized" else {}) for name in VARIANTS}


@pytest.fixture
def latency() -> dict:
    def measured(milliseconds, speedup, low, high, verdict) -> dict:
        speedups = {"speedup": speedup, "speedup_low": low, "speedup_high": high, "verdict": verdict}
        return {"latency_ms": milliseconds, **speedups}

    same = measured(1.5, 1.0, 1.0, 1.0, "no difference")
    return {
        "original": {"cpu": "any", "batch_1": same, "batch_64": same},
        "exported": {"cpu": "any", "batch_1": same, "batch_64": measured(1.0, 1.5, 1.4, 1.6, "faster")},
        "optimized": {"cpu": "any", "batch_1": measured(0.5, 3.0, 2.5, 3.5, "faster"), "batch_64": same},
    }


def test_the_table_has_one_row_per_variant_in_the_same_columns(metrics, latency):
    table = comparison(metrics, latency)
    assert list(table["model"]) == ["original", "averaged", "pruned", "recalibrated", "optimized"]
    assert len(table.columns) == 10
    assert list(table.columns[-2:]) == ["batch 1 (ms)", "batch 64 (ms)"]


def test_a_row_gives_every_metric_in_its_unit(metrics, latency):
    assert comparison(metrics, latency).iloc[-1].to_dict() == {
        "model": "optimized",
        "test accuracy": "97.00% [95.00, 99.00]",
        "size (MB)": "6.27",
        "zipped (MB)": "23.00",
        "parameters": "6,270,000",
        "not zero": "6,269,999",
        "MACs": "12.35 M",
        "in int8": "50%",
        "batch 1 (ms)": "0.50",
        "batch 64 (ms)": "1.50",
    }


def test_a_variant_that_was_not_timed_has_empty_cells(metrics, latency):
    times = comparison(metrics, latency).set_index("model")[["batch 1 (ms)", "batch 64 (ms)"]]
    assert list(times.loc["original"]) == ["1.50", "1.50"]
    assert list(times.loc["pruned"]) == ["", ""]


def test_without_timings_there_are_no_columns_for_them(metrics):
    assert comparison(metrics, {}).shape == (len(VARIANTS), 8)


def test_markdown_holds_every_cell_in_columns_of_one_width():
    table = pd.DataFrame({"model": ["a", "longest"], "size": ["1,000.00", ""]})
    text = markdown(table)
    lines = text.splitlines()
    assert text.endswith("|\n")
    assert len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]
    assert cells == [["model", "size"], ["a", "1,000.00"], ["longest", ""]]
    assert [cell.strip("-") for cell in lines[1].strip("|").split("|")] == [":", ":"]
    assert lines[1].startswith("|:-")
    assert lines[1].endswith("-:|")


def test_markdown_keeps_numbers_as_they_are_written():
    for cell in ("0.10", "1e3", "007", "99.50%", "-0"):
        assert f" {cell} " in markdown(pd.DataFrame({"a": ["b"], "c": [cell]}))


def test_in_a_terminal_units_stand_in_the_cells_under_short_headings(metrics, latency):
    head, *lines = plain_text(comparison(metrics, latency)).splitlines()
    headings = ["test accuracy", "size", "zipped", "parameters", "not zero", "MACs", "int8", "batch 1", "batch 64"]
    assert head.split() == " ".join(headings).split()
    assert [line.split()[0] for line in lines] == list(VARIANTS)
    assert " ".join(lines[-1].split()[4:]) == "6.27 MB 23.00 MB 6,270,000 6,269,999 12.35 M 50% 0.50 ms 1.50 ms"
    assert lines[2].split()[-1] == "0%"


@pytest.mark.parametrize("path", [None, *RESULTS], ids=lambda path: path.stem if path else "default")
def test_in_a_terminal_the_table_fits_120_columns(path):
    stored = read_json(path) if path else {}
    scores = stored.get("metrics") or read_scores(ROOT / "plots/models.csv")
    for latency in timings(stored).values() or [read_latency(ROOT / "metrics/latency")]:
        lines = plain_text(comparison(scores, latency)).splitlines()
        assert max(map(len, lines)) <= 120
        assert "..." not in "".join(lines)
