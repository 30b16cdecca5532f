"""The file of a sweep: a CSV whose header names parameters, and whose every line is one experiment."""

import csv
import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightweight.core.errors import InputError

NAME = "name"  # the column of names of experiments, which may be missing
VALID_NAME = re.compile(r"\w[\w-]*(\.[\w-]+)*")


@dataclass(frozen=True)
class Line:
    """Hold a line of the file: where it stands, the name of the experiment, and values by parameter."""

    place: str
    name: str
    values: Mapping[str, str]

    @property
    def overrides(self) -> tuple[str, ...]:
        """List KEY=VALUE of every parameter, as `dvc exp run --set-param` takes them."""
        return tuple(f"{key}={value}" for key, value in self.values.items())


def read_lines(path: Path, params: Mapping[str, Any]) -> list[Line]:
    """Read the experiments that the file names; `params` has the keys that exist.

    Without a column `name`, an experiment is called by the file and a digest of the values. Raises InputError that
    names the file and the line.
    """
    (_, header), *rows = _read_cells(path) or [(1, [])]
    for key in header:
        if key != NAME and not _is_known(key, params):
            raise InputError(f"{path}: line 1: {key!r}: no such parameter in params.yaml")
        if header.count(key) > 1:
            raise InputError(f"{path}: line 1: {key!r} stands twice")
    if not rows or header == [NAME]:
        raise InputError(f"{path}: must have a header that names parameters, and a line of values or more")
    return [_make_line(path, f"{path}: line {number}", header, cells) for number, cells in rows]


def _read_cells(path: Path) -> list[tuple[int, list[str]]]:
    """Read the number and the cells of every line that is not empty. Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; a sweep is a CSV such as sweeps/amounts.csv")
    try:
        reader = csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
        cells = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV in UTF-8: {error}") from None
    return [(number, row) for number, row in cells if row]


def _make_line(path: Path, place: str, header: list[str], cells: list[str]) -> Line:
    """Make a line of its cells. Raises InputError for missing or odd ones."""
    if len(cells) != len(header):
        raise InputError(f"{place}: has {len(cells)} values, and the header has {len(header)}")
    values = dict(zip(header, cells, strict=True))
    for key, value in values.items():
        if not value:
            raise InputError(f"{place}: {key} has no value; nothing is written as null")
    name = values.pop(NAME, None) or f"{path.stem}-{_digest(values)}"
    if not VALID_NAME.fullmatch(name) or name.endswith(".lock"):
        raise InputError(f"{place}: name = {name!r}: must be of letters, digits, - and _, with single dots between")
    return Line(place, name, values)


def _is_known(key: str, params: Any) -> bool:
    """Tell whether `params` has the dotted key."""
    for part in key.split("."):
        if not isinstance(params, Mapping) or part not in params:
            return False
        params = params[part]
    return True


def _digest(values: Mapping[str, str]) -> str:
    """Compute a digest of the values in any order of columns, in 8 hex digits."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
