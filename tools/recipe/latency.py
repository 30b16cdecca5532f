"""Latencies of an experiment's models, by one thread and by two, measured here and now by the stage `benchmark`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightweight.core.errors import InputError
from lightweight.reporting.results import read_latency
from tools.recipe.experiment import run_module

THREADS = (1, 2)


def measure(folder: Path, params: dict[str, Any]) -> dict[str, Any]:
    """Measure the models in a folder by each number of `THREADS`. Raises InputError when the benchmark fails.

    Returns the date, and under `threads_NUMBER` what `evaluation.benchmark.measure_latency` returns.
    """
    results: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat()}
    for threads in THREADS:
        if run_module("stages.benchmark", folder, params | {"threads": threads}).returncode:
            raise InputError(f"{folder.name}: the benchmark by {threads} threads failed, see above")
        results[f"threads_{threads}"] = read_latency(folder / "metrics/latency")
    return results
