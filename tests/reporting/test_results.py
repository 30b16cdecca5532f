"""Metrics are read in the order of the variants and of the timed models, and latency only where it was measured."""

import pytest

from lightweight.core.errors import InputError
from lightweight.core.files import write_json
from lightweight.core.variants import VARIANTS
from lightweight.reporting.results import batch_sizes, read_latency, read_scores
from tests.examples import made_up_latency, made_up_metrics, write_scores


@pytest.fixture
def metrics(tmp_path):
    write_scores(tmp_path / "models.csv", made_up_metrics())
    for name, content in made_up_latency().items():
        write_json(tmp_path / f"latency/{name}.json", content)
    return tmp_path


def test_metrics_are_read_in_the_order_of_the_variants_and_latencies_original_first(metrics):
    scores, latency = read_scores(metrics / "models.csv"), read_latency(metrics / "latency")
    assert (list(scores), list(latency)) == (list(VARIANTS), ["original", "exported", "optimized"])
    assert (scores, latency) == (made_up_metrics(), made_up_latency())


def test_without_a_benchmark_there_are_no_latencies_and_no_batch_sizes(metrics):
    assert read_latency(metrics / "nowhere") == {}
    assert batch_sizes({}) == []
    assert batch_sizes(made_up_latency()) == ["batch_1", "batch_64"]


@pytest.mark.parametrize(
    ("old", "new"), [("pruned,", "lost,"), ("model,", "name,"), ("0.95,", "much,"), (",0.25", ""), ("\nrecal", "\n\n#")]
)
def test_scores_that_are_damaged_or_missing_are_one_line(metrics, old, new):
    path = metrics / "models.csv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=r"models.csv: must have a row of numbers for every model; `dvc repro` makes"):
        read_scores(path)
    path.unlink()
    with pytest.raises(InputError, match=r"models.csv: no such file; `dvc repro` makes it"):
        read_scores(path)
