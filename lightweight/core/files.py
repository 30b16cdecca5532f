"""Atomic writing of files, and reading of them with errors that name the file."""

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from glob import escape
from pathlib import Path
from typing import Any

from lightweight.core.errors import InputError

Table = tuple[Iterable[str], Iterable[Mapping[str, Any]]]  # the columns, and the rows by column

FORMAT_KEY = "format"  # in the metadata of files that carry a model, a data set or a checkpoint
FORMAT_VERSION = 1  # rises when older code would misread a file; files without a version have the layout of version 1


read_only = False  # in a process that only computes, beside another one that writes: see execution/worker.py


class NothingToWrite(BaseException):
    """End of a process that only computes: its part is done where results are written."""


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: a failed write leaves the old file alone. Raises OSError."""
    if read_only:
        raise NothingToWrite
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # another process may write the same file
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _remove_stale(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, f"not written: {error.strerror}", str(path)) from error


def _remove_stale(path: Path) -> None:
    """Remove the temporary files that processes which were killed have left beside `path`."""
    for file in path.parent.glob(f".{escape(path.name)}.*.tmp"):
        process = file.name.rsplit(".", 2)[1]
        if process.isdecimal() and not _is_running(int(process)):
            file.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    """Tell whether a process with this number exists, which may be another user's."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def write_text(path: Path, content: str) -> None:
    """Write text in UTF-8, as `write_bytes` does."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON with two-space indents, keys in the given order and no NaN: equal content gives equal bytes."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a header, then one line per row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_tables(folder: Path, tables: Mapping[str, Table]) -> None:
    """Write every table to `folder/NAME.csv`."""
    for name, (columns, rows) in tables.items():
        write_csv(folder / f"{name}.csv", columns, rows)


def check_format(file: object, version: object) -> None:
    """Check that this code reads files of the version. Raises InputError that names the file and both versions."""
    if type(version) is not int or not 0 <= version <= FORMAT_VERSION:
        rule = f"this version of the project reads 0 to {FORMAT_VERSION}; `dvc repro` makes the file anew"
        raise InputError(f"{file}: {FORMAT_KEY} = {version!r}: {rule}")


def user_path(root: Path, name: str) -> Path:
    """Return the path of what the user names in `params.yaml`: relative to `root`, where `~` is the home folder."""
    try:
        return root / Path(name).expanduser()
    except RuntimeError:  # of a user whom this machine does not know
        return root / name


def missing(path: Path) -> InputError:
    """Make the error of a file that a stage should have made."""
    return InputError(f"{path}: no such file; `dvc repro` makes it")


def read_bytes(path: Path) -> bytes:
    """Read a file that a stage has made. Raises InputError that names a missing one."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise missing(path) from None
    except MemoryError:
        raise InputError(f"{path}: larger than the memory that is left: {path.stat().st_size:,} bytes") from None


def read_json(path: Path) -> Any:
    """Read JSON. Raises InputError that names a missing or damaged file."""
    content = read_bytes(path)
    try:
        return json.loads(content)
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read the rows that `write_csv` wrote, as text by column. Raises InputError that names a missing file."""
    return list(csv.DictReader(io.StringIO(read_bytes(path).decode())))
