import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightweight.core import files
from lightweight.core.errors import InputError

FULL_DISK = """
import resource, sys
from pathlib import Path
from lightweight.execution.process import run_stage
from lightweight.core.files import write_bytes
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
run_stage(lambda: write_bytes(Path(sys.argv[1]), bytes(1000)))
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "made" / "on" / "demand.txt"


@pytest.mark.parametrize("content", [b"", b"\0\r\n\xff", b"x" * 100_000])
def test_bytes_come_back_and_nothing_else_is_left(path, content):
    files.write_bytes(path, content)
    assert files.read_bytes(path) == content
    assert list(path.parent.iterdir()) == [path]


def test_a_new_file_replaces_the_whole_old_one(path):
    files.write_bytes(path, b"the long old content")
    files.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_reader_of_the_old_file_goes_on_reading_the_old_file(path):
    files.write_bytes(path, b"old")
    with path.open("rb") as reader:
        files.write_bytes(path, b"new")
        assert reader.read() == b"old"


def test_a_file_is_on_the_disk_before_it_takes_its_name(path, monkeypatch):
    happened = []

    def sync(descriptor: int) -> None:
        happened.append(("synced", os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size))

    replace = Path.replace
    monkeypatch.setattr(files.os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", lambda *paths: (happened.append(("renamed",)), replace(*paths))[1])
    files.write_bytes(path, b"content")
    assert happened == [("synced", path.stat().st_ino, 7), ("renamed",)]


@pytest.mark.skipif(sys.platform == "win32", reason="the limit on file sizes is POSIX")
def test_a_write_that_fails_midway_is_one_line_and_leaves_the_old_file_and_no_other(path, start_python):
    files.write_bytes(path, b"old")
    process = start_python(FULL_DISK, path)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (1, "")
    assert errors == f"error: {path}: not written: File too large\n"
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_what_killed_processes_left_of_a_file_is_removed_with_the_next_write_and_what_living_ones_write_is_not(path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path.parent.mkdir(parents=True)
    stale, alive, other = (
        path.with_name(name)
        for name in (
            f".{path.name}.{gone.pid}.tmp",
            f".{path.name}.{os.getppid()}.tmp",
            f".other.txt.{gone.pid}.tmp",
        )
    )
    for file in (stale, alive, other):
        file.touch()
    files.write_bytes(path, b"new")
    assert not stale.exists()
    assert alive.exists()
    assert other.exists()


def test_a_name_that_is_taken_by_a_folder_is_an_error_that_names_it_and_leaves_no_file(path):
    path.mkdir(parents=True)
    with pytest.raises(OSError, match="not written") as error:
        files.write_bytes(path, b"new")
    assert error.value.filename == str(path)
    assert list(path.parent.iterdir()) == [path]


def test_text_is_written_as_utf8_with_its_own_line_ends(path):
    files.write_text(path, "größer\n")
    assert path.read_bytes() == "größer\n".encode()


def test_json_keeps_order_and_values_and_ends_in_a_newline(path):
    content = {"z": [1, 0.1, None], "a": {"b": True}}
    files.write_json(path, content)
    assert json.dumps(files.read_json(path)) == json.dumps(content)
    assert path.read_text().endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_what_json_cannot_hold_and_leaves_the_old_file(path, value):
    files.write_json(path, 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"accuracy": value})
    assert files.read_json(path) == 1


def test_csv_rows_come_back_as_text_by_column(path):
    rows = [{"b": 0.1, "a": 'quoted "x", y'}, {"a": 2, "b": -1}]
    files.write_csv(path, ["a", "b"], rows)
    assert files.read_csv(path) == [{"a": 'quoted "x", y', "b": "0.1"}, {"a": "2", "b": "-1"}]
    assert path.read_bytes().startswith(b"a,b\n")
    assert b"\r" not in path.read_bytes()


def test_a_csv_without_rows_keeps_its_header(path):
    files.write_csv(path, ["a", "b"], [])
    assert path.read_bytes() == b"a,b\n"
    assert files.read_csv(path) == []


@pytest.mark.parametrize("read", [files.read_bytes, files.read_json, files.read_csv])
def test_a_missing_file_is_named_with_what_makes_it(path, read):
    with pytest.raises(InputError) as error:
        read(path)
    assert str(error.value) == f"{path}: no such file; `dvc repro` makes it"


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe"])
def test_damaged_json_is_one_line_that_names_the_file(path, content):
    files.write_bytes(path, content)
    with pytest.raises(InputError) as error:
        files.read_json(path)
    assert str(error.value).startswith(f"{path}: not valid JSON: ")
    assert "\n" not in str(error.value)
