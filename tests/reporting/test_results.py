"""Metrics are read in the order of the variants and of the timed models, and latency only where it was measured."""

import json

import pytest

from lightweight.core.errors import InputError
from lightweight.core.variants import VARIANTS
from lightweight.reporting.results import batch_sizes, read_latency, read_scores
from tests.examples import made_up_latency, made_up_metrics


@pytest.fixture
def metrics(tmp_path):
    for folder, results in ((tmp_path, made_up_metrics()), (tmp_path / "latency", made_up_latency())):
        folder.mkdir(exist_ok=True)
        for name, content in results.items():
            (folder / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_metrics_are_read_in_the_order_of_the_variants_and_latencies_original_first(metrics):
    scores, latency = read_scores(metrics), read_latency(metrics / "latency")
    assert (list(scores), list(latency)) == (list(VARIANTS), ["original", "exported", "optimized"])
    assert (scores, latency) == (made_up_metrics(), made_up_latency())


def test_without_a_benchmark_there_are_no_latencies_and_no_batch_sizes(metrics):
    assert read_latency(metrics / "nowhere") == {}
    assert batch_sizes({}) == []
    assert batch_sizes(made_up_latency()) == ["batch_1", "batch_64"]


def test_missing_scores_are_one_line(metrics):
    (metrics / "pruned.json").unlink()
    with pytest.raises(InputError, match=r"pruned.json: no such file; `dvc repro` makes it"):
        read_scores(metrics)
