"""Latencies of an experiment's models, by one thread and by two, measured here and now by the stage `benchmark`."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightweight.core.errors import InputError
from lightweight.core.files import write_text
from lightweight.reporting.results import read_latency
from tools.recipe.experiment import PARAMS

THREADS = (1, 2)


def measure(folder: Path, params: dict[str, Any]) -> dict[str, Any]:
    """Measure the models in a folder by each number of `THREADS`. Raises InputError when the benchmark fails.

    Returns the date, and under `threads_NUMBER` what `evaluation.benchmark.measure_latency` returns.
    """
    path = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))
    results: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat()}
    for threads in THREADS:
        write_text(folder / PARAMS, json.dumps(params | {"threads": threads}))
        command = [sys.executable, "-m", "stages.benchmark"]
        if subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": path}, check=False).returncode:
            raise InputError(f"{folder.name}: the benchmark by {threads} threads failed, see above")
        results[f"threads_{threads}"] = read_latency(folder / "metrics/latency")
    return results
