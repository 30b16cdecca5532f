"""The experiments of the repository, read from git as DVC has committed them: metrics, latency, parameters.

`dvc exp show` reads the same commits; reading them by git takes milliseconds, not seconds, and shows those of every
commit.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lightweight.core.errors import InputError
from lightweight.core.yaml import parse_yaml

METRICS, LATENCY, PARAMS = "metrics/optimized.json", "metrics/latency/optimized.json", "params.yaml"
DATA = "prepare"  # the section of params.yaml on whose values accuracies depend
SPLIT_BY_SEED = ("digits", "folder")  # data sets that may have no test split of their own


@dataclass(frozen=True)
class Experiment:
    """Hold the metrics of an experiment's optimized file, its latency if it measured one, and its flat parameters."""

    name: str
    metrics: dict[str, Any]
    latency: dict[str, Any]
    params: dict[str, Any]

    def changes(self, other: Mapping[str, Any]) -> dict[str, Any]:
        """Return its parameters that differ from others."""
        return {key: value for key, value in self.params.items() if other.get(key, ...) != value}

    def has_data_of(self, other: Mapping[str, Any]) -> bool:
        """Tell whether it was scored on the same test images as a run with other parameters."""
        changes = self.changes(other)
        split_by_seed = self.params.get(f"{DATA}.dataset") in SPLIT_BY_SEED
        return not any(key.split(".")[0] == DATA or (key == "seed" and split_by_seed) for key in changes)


def read_experiments() -> list[Experiment]:
    """Read every experiment of this repository, the oldest first; none where there is no git."""
    try:
        order = ["for-each-ref", "--sort=creatordate", "--format=%(refname) %(objectname)", "refs/exps"]
        refs = [line.split() for line in _git(*order).splitlines()]
    except (OSError, subprocess.CalledProcessError):
        return []
    found = (_read(ref, commit) for ref, commit in refs if len(ref.split("/")) == 5)  # others are DVC's own
    return [experiment for experiment in found if experiment]


def _read(ref: str, commit: str) -> Experiment | None:
    """Read an experiment; None where it failed before it was scored, or belongs to another version."""
    try:
        metrics = json.loads(_git("show", f"{commit}:{METRICS}"))
        params = dict(flatten(parse_yaml(_git("show", f"{commit}:{PARAMS}"), PARAMS)))
        return Experiment(ref.split("/")[-1], metrics, _own_latency(commit), params)
    except (subprocess.CalledProcessError, ValueError, InputError):
        return None


def _own_latency(commit: str) -> dict[str, Any]:
    """Read the latency of an experiment; nothing where the file is still that of the commit it is based on."""
    try:
        own, before = _git("rev-parse", f"{commit}:{LATENCY}", f"{commit}~1:{LATENCY}").split()
    except (subprocess.CalledProcessError, ValueError):
        return {}
    return {} if own == before else json.loads(_git("cat-file", "blob", own))


def flatten(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested parameters as pairs of dotted key and value."""
    for key, value in params.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, check=True, text=True).stdout
