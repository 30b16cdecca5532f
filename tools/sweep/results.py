"""The table of a sweep: a row per line of its file, with what came of it and the metrics of the experiment."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightweight.core.files import read_csv, write_csv
from tools.sweep.lines import Line
from tools.sweep.repository import read_experiment

FOLDER = Path("sweeps/results")
METRICS = "metrics/optimized.json"


class Results:
    """Hold the rows of a sweep, and write them whenever one changes."""

    def __init__(self, path: Path, commit: str, lines: Sequence[Line]) -> None:
        """Begin with rows that are missing; `path` may hold those of an earlier run."""
        self.path, self.commit = path, commit
        before = [row for row in read_csv(path) if row.get("commit") == commit] if path.exists() else []
        self._seconds = {row["experiment"]: row["seconds"] for row in before}
        self.rows: dict[str, dict[str, Any]] = {}
        for line in lines:
            self._set(line, "missing", {})

    def add_present(self, line: Line) -> None:
        """Add an experiment that was there before."""
        self._set(line, "done", self._read_metrics(line), self._seconds.get(line.name, ""))

    def add_done(self, line: Line, seconds: float) -> dict[str, Any]:
        """Add an experiment that has just come home, and return its metrics."""
        metrics = self._read_metrics(line)
        self._set(line, "done", metrics, f"{seconds:.1f}")
        self.write()
        return metrics

    def add_failed(self, line: Line) -> None:
        """Add an experiment that failed."""
        self._set(line, "failed", {})
        self.write()

    def count(self, state: str) -> int:
        """Count the rows that are done, failed or missing."""
        return sum(row["state"] == state for row in self.rows.values())

    def write(self) -> None:
        """Write all rows."""
        write_csv(self.path, {column: None for row in self.rows.values() for column in row}, self.rows.values())

    def _set(self, line: Line, state: str, metrics: dict[str, Any], seconds: str = "") -> None:
        own = {"experiment": line.name, "commit": self.commit, "state": state, "seconds": seconds}
        self.rows[line.name] = own | dict(line.values) | metrics

    def _read_metrics(self, line: Line) -> dict[str, Any]:
        return json.loads(read_experiment(self.commit, line.name, METRICS))
