"""Results that `evaluate` and `benchmark` have measured, read for the tables, the sentences and the pictures."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightweight.core.errors import InputError
from lightweight.core.files import read_csv, read_json
from lightweight.core.variants import VARIANTS, in_order

TIMED_MODELS = ("original", "exported", "recalibrated", "optimized")  # that `benchmark` times, in this order
TEXTS = ("model", "worst_class")  # columns of the table of scores that hold no number

Scores = dict[str, dict[str, Any]]  # by variant: what `evaluation.scores.score` returns
Latency = dict[str, dict[str, Any]]  # by timed model: what `evaluation.benchmark.measure_latency` returns


def read_scores(path: Path) -> Scores:
    """Read the table of scores that `evaluate` writes. Raises InputError that names a missing or damaged file."""
    return parse_scores(read_csv(path), path)


def parse_scores(rows: Iterable[Mapping[str, str]], path: Path) -> Scores:
    """Convert the rows of that table, whose values are text, to numbers by variant and key.

    Raises InputError, which names `path`, unless every variant has a row of numbers.
    """
    try:
        scores = {row["model"]: {key: _parse(key, row[key]) for key in row if key != "model"} for row in rows}
        return {name: scores[name] for name in in_order({*VARIANTS, *scores})}
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: must have a row of numbers for every model; `dvc repro` makes it") from None


def _parse(key: str, text: str) -> Any:
    return text if key in TEXTS else json.loads(text)


def read_latency(folder: Path) -> Latency:
    """Read FOLDER/MODEL.json of every timed model that is there, the original first; none before `benchmark` ran."""
    paths = {name: folder / f"{name}.json" for name in TIMED_MODELS}
    return {name: read_json(path) for name, path in paths.items() if path.exists()}


def batch_sizes(latency: Latency) -> list[str]:
    """List the keys `batch_SIZE` under which the latencies stand; none where nothing was measured."""
    return [key for key in next(iter(latency.values()), {}) if key.startswith("batch_")]
