"""The plan of a sweep: its lines with the params that each leads to, checked before anything runs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightweight.core.errors import InputError
from lightweight.core.yaml import parse_yaml, read_yaml
from tools.sweep.lines import Line, read_lines
from tools.sweep.repository import has_experiment, read_experiment, run_program

PARAMS = Path("params.yaml")


@dataclass(frozen=True)
class Planned:
    """Hold a line of a sweep, all params that it leads to, and whether its experiment is there already."""

    line: Line
    params: dict[str, Any]
    present: bool

    def count_processes(self, cores: int) -> int:
        """Count the processes of a stage that so many cores have a use for: a power of two."""
        most = min(self.params["train"]["shards"], max(1, cores // self.params["threads"]))
        return 1 << (most.bit_length() - 1)


def plan_sweep(path: Path, commit: str) -> list[Planned]:
    """Plan the sweep of a file. Raises InputError for the first line that is wrong or stands twice."""
    lines = read_lines(path, read_yaml(PARAMS))
    planned: list[Planned] = []
    for line, params in zip(lines, _resolve_params(lines), strict=True):
        for other in planned:
            if line.name == other.line.name or params == other.params:
                raise InputError(f"{line.place}: {line.name}: the same experiment as in {other.line.place}")
        planned.append(Planned(line, params, _is_present(commit, line, params)))
    return planned


def _resolve_params(lines: list[Line]) -> list[dict[str, Any]]:
    """Look up which params each line leads to, in the environment of the stages, which check them."""
    given = json.dumps([(line.place, line.overrides) for line in lines])
    return json.loads(run_program("python", "-m", "tools.sweep.values", given=given))


def _is_present(commit: str, line: Line, params: dict[str, Any]) -> bool:
    """Tell whether the commit has the experiment. Raises InputError for one of that name with other params."""
    if not has_experiment(commit, line.name):
        return False
    if parse_yaml(read_experiment(commit, line.name, str(PARAMS)), line.name) != params:
        rule = f"this commit has another experiment of that name: dvc exp remove {line.name}"
        raise InputError(f"{line.place}: {line.name}: {rule}")
    return True
