"""How to make the results again: the commit, the parameters that differ from those committed, the commands."""

import json
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightweight.core.errors import InputError
from lightweight.core.yaml import parse_yaml
from lightweight.page.experiments import PARAMS, flatten

SHORT = 10  # characters of a commit


@dataclass(frozen=True)
class Recipe:
    """Hold the commit, the code that differed from it, parameters as (key, committed, used), and the commands."""

    commit: str | None
    changed: tuple[str, ...]
    differing: tuple[tuple[str, Any, Any], ...]
    commands: tuple[str, ...]

    @property
    def short(self) -> str:
        """Return the first command in one line for the top of the page."""
        return " && ".join(self.commands)


def make_recipe(entry: Mapping[str, Any], params: Mapping[str, Any]) -> Recipe:
    """Make the recipe of an artifact from its entry in metrics/provenance.json and the flat parameters of now."""
    commit, changed = entry.get("commit"), tuple(entry.get("changed") or ())
    committed = _committed_params(commit)
    differing = tuple(
        (key, committed.get(key), value) for key, value in params.items() if committed and committed.get(key) != value
    )
    changes = " ".join(f"-S {shlex.quote(f'{key}={json.dumps(value)}')}" for key, _, value in differing)
    run = f"dvc exp run {changes}" if changes else "make repro"
    return Recipe(commit, changed, differing, (f"git checkout {commit[:SHORT]}", run) if commit else (run,))


def _committed_params(commit: str | None) -> dict[str, Any]:
    """Read the flat parameters of a commit; nothing where it is not in this repository."""
    try:
        text = subprocess.run(["git", "show", f"{commit}:{PARAMS}"], capture_output=True, check=True, text=True).stdout
        return dict(flatten(parse_yaml(text, PARAMS)))
    except (OSError, subprocess.CalledProcessError, InputError):
        return {}
