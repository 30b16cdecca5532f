"""Results that `evaluate` and `benchmark` have measured, read for the tables, the sentences and the pictures."""

from pathlib import Path
from typing import Any

from lightweight.core.files import read_json
from lightweight.core.variants import VARIANTS

TIMED_MODELS = ("original", "exported", "recalibrated", "optimized")  # that `benchmark` times, in this order

Scores = dict[str, dict[str, Any]]  # by variant: what `evaluation.scores.score` returns
Latency = dict[str, dict[str, Any]]  # by timed model: what `evaluation.benchmark.measure_latency` returns


def read_scores(folder: Path) -> Scores:
    """Read FOLDER/VARIANT.json of every variant. Raises InputError that names a missing or damaged file."""
    return {name: read_json(folder / f"{name}.json") for name in VARIANTS}


def read_latency(folder: Path) -> Latency:
    """Read FOLDER/MODEL.json of every timed model that is there, the original first; none before `benchmark` ran."""
    paths = {name: folder / f"{name}.json" for name in TIMED_MODELS}
    return {name: read_json(path) for name, path in paths.items() if path.exists()}


def batch_sizes(latency: Latency) -> list[str]:
    """List the keys `batch_SIZE` under which the latencies stand; none where nothing was measured."""
    return [key for key in next(iter(latency.values()), {}) if key.startswith("batch_")]
