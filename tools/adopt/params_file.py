"""The params.yaml that is written: a template in which values are replaced, and comments stay."""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from lightweight.core.errors import InputError
from lightweight.core.yaml import parse_yaml
from stages.check import read_params

PLAIN = re.compile(r"[\w./:-]+")  # text that may stand without quotes, unless YAML takes it for something else


def check_replaceable(path: Path, force: bool) -> None:
    """Raise InputError for a folder, and for a file whose content would be lost: one that git does not have."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder: --output must name a file")
    if not path.exists() or force:
        return
    command = ["git", "status", "--porcelain", "--ignored", "--", path.name]
    try:
        done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        done = "no git"
    if done:
        raise InputError(
            f"{path}: is there and has content that git does not have; --force replaces it, --output names another"
        )


def parse_changes(changes: list[str]) -> dict[str, str]:
    """Parse KEY=VALUE of the command line to the text of a value by key. Raises InputError."""
    pairs = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise InputError(f"--set {change}: must be KEY=VALUE")
        pairs[key] = format_value(parse_yaml(value, f"--set {key}"))
    return pairs


def format_value(value: Any) -> str:
    """Write a value in one line of YAML."""
    if isinstance(value, str) and PLAIN.fullmatch(value) and not value.endswith(":"):
        return value if parse_yaml(value, "a value") == value else json.dumps(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{format_value(key)}: {format_value(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def set_values(text: str, values: Mapping[str, str]) -> str:
    """Replace the values of keys such as `train.epochs`, each in its line; comments stay. Raises InputError."""
    lines = text.splitlines()
    places = _find_keys(lines)
    for key, value in values.items():
        if key not in places:
            raise InputError(f"--set {key}: no such key in params.yaml")
        head, comment = re.match(r"(\s*\w+: )[^#]*?(\s*#.*)?$", lines[places[key]]).groups()  # type: ignore[union-attr]
        lines[places[key]] = f"{head}{value}".ljust(26) + (f" {comment.lstrip()}" if comment else "")
        lines[places[key]] = lines[places[key]].rstrip()
    return "\n".join(lines) + "\n"


def _find_keys(lines: list[str]) -> dict[str, int]:
    """Number the lines of all keys with a value, by their dotted name; two spaces lead one level down."""
    places: dict[str, int] = {}
    parents: list[str] = []
    for number, line in enumerate(lines):
        if found := re.match(r"((?:  )*)(\w+):(?: ([^\s#]))?", line):
            parents[len(found[1]) // 2 :] = [found[2]]
            if found[3]:
                places[".".join(parents)] = number
    return places


def read_text(text: str) -> SimpleNamespace:
    """Validate the text of a params.yaml, and return its sections. Raises InputError."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        path.write_text(text)
        try:
            return read_params(path)
        except InputError as error:
            raise InputError(str(error).replace(f"{folder}/", "")) from None
