"""Check the values of a sweep by the models of all sections, before anything runs: by stage `check`, once a line.

    python -m tools.sweep.values < LINES.json

Reads   params.yaml, and from standard input a list of [PLACE, [KEY=VALUE, ...]]
Prints  the resulting params of each line as a list in JSON; or one line on the first fault, with exit code 1
"""

import json
import sys
import tempfile
from contextlib import chdir
from pathlib import Path
from typing import Any

from dvc.utils.hydra import apply_overrides, to_hydra_overrides

from lightweight.core.errors import InputError, one_line
from lightweight.core.yaml import read_yaml
from lightweight.execution.process import run_stage
from stages import check


def main() -> None:
    text = check.PARAMS.read_text()
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        results = [apply(text, place, overrides) for place, overrides in json.load(sys.stdin)]
    print(json.dumps(results))


def apply(text: str, place: str, overrides: list[str]) -> dict[str, Any]:
    """Apply the overrides to the text of params.yaml, as `dvc exp run` does, and check all of it. Raises InputError."""
    check.PARAMS.write_text(text)
    try:
        several = [parsed for parsed in to_hydra_overrides(overrides) if parsed.is_sweep_override()]
        if not several:
            apply_overrides(check.PARAMS, overrides)
    except Exception as error:  # hydra, OmegaConf and ruamel.yaml raise their own
        raise InputError(f"{place}: {one_line(error)}") from None
    if several:
        rule = "names several values; each needs a line of its own, or brackets if it is a list"
        raise InputError(f"{place}: {several[0].input_line}: {rule}")
    try:
        check.read_params()
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    return read_yaml(Path(check.PARAMS))


if __name__ == "__main__":
    run_stage(main)
