import pytest

from lightweight.core.errors import InputError
from lightweight.core.params import load_params
from lightweight.core.variants import VARIANTS
from lightweight.reporting.table import ReportParams, comparison, headline, markdown


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
    def measured(milliseconds, speedup, low, high, headline) -> dict:
        found = {"latency_ms": milliseconds, "speedup": speedup, "speedup_low": low, "speedup_high": high}
        return found | {"verdict": headline}

    same = measured(1.5, 1.0, 1.0, 1.0, "no difference")
    return {
        "original": {"cpu": "any", "batch_1": same, "batch_64": same},
        "exported": {"cpu": "any", "batch_1": same, "batch_64": measured(1.0, 1.5, 1.4, 1.6, "faster")},
        "optimized": {"cpu": "any", "batch_1": measured(0.5, 3.0, 2.5, 3.5, "faster"), "batch_64": same},
    }


def test_the_table_has_one_row_per_variant_in_the_same_columns(metrics, latency):
    head, *rows = comparison(metrics, latency)
    assert [row[0] for row in rows] == ["original", "averaged", "pruned", "recalibrated", "optimized"]
    assert {len(row) for row in rows} == {len(head)} == {10}
    assert head[-2:] == ["batch 1 (ms)", "batch 64 (ms)"]


def test_a_row_gives_every_metric_in_its_unit(metrics, latency):
    head, *rows = comparison(metrics, latency)
    assert dict(zip(head, rows[-1], strict=True)) == {
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
    rows = {row[0]: row[8:] for row in comparison(metrics, latency)}
    assert rows["original"] == ["1.50", "1.50"]
    assert rows["pruned"] == ["", ""]


def test_without_timings_there_are_no_columns_for_them(metrics):
    rows = comparison(metrics, {})
    assert {len(row) for row in rows} == {8}
    assert len(rows) == 1 + len(VARIANTS)


def test_the_verdict_compares_the_optimized_file_with_the_original(metrics, latency):
    size, batch_1, batch_64 = headline(metrics, latency).splitlines()
    assert "4.0 times smaller" in size
    assert "-0.50 points in accuracy" in size
    assert "3 images gained and 9 lost of 1,200" in size
    assert "p = 0.15)" in size
    assert batch_1.startswith("At batch 1 it runs 3.00 times [2.50, 3.50] as fast as the original in PyTorch; ")
    assert batch_1.endswith("runs as fast (no difference).")
    assert batch_64.startswith("At batch 64 it runs as fast (no difference) as the original in PyTorch; ")
    assert batch_64.endswith("runs 1.50 times [1.40, 1.60] as fast.")


def test_a_gain_in_accuracy_has_a_plus(metrics):
    metrics["optimized"]["accuracy"] = 0.98
    assert "+0.50 points in accuracy" in headline(metrics, {})


def test_without_timings_the_verdict_is_one_sentence(metrics):
    assert len(headline(metrics, {}).splitlines()) == 1


def test_markdown_holds_every_cell_in_columns_of_one_width():
    rows = [["model", "size"], ["a", "1,000.00"], ["longest", ""]]
    text = markdown(rows)
    lines = text.splitlines()
    assert text.endswith("|\n")
    assert len({len(line) for line in lines}) == 1
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])] == rows
    assert lines[1] == "| ------- | -------: |"
    assert lines[2] == "| a       | 1,000.00 |"
    assert lines[0] == "| model   |     size |"


def test_an_unknown_variant_is_refused_with_the_known_ones(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("report: {model: smallest}\n")
    with pytest.raises(InputError) as error:
        load_params(path, report=ReportParams)
    rule = "must be 'original', 'averaged', 'pruned', 'recalibrated' or 'optimized'"
    assert str(error.value) == f"{path}: report.model = 'smallest': {rule}"
