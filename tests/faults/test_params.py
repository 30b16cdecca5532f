"""Any params.yaml ends in a valid plan or in one line that names the file."""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from ruamel.yaml import YAML

from lightweight.core.errors import InputError
from stages import check
from tests.contract import ROOT
from tests.faults.mutate_params import VALUES

SECONDS = 60  # a guard against hanging; an example takes a fiftieth of a second
LONGEST = 500  # characters of a message
VALID = YAML(typ="safe").load(ROOT / "params.yaml")
PLACES = [(name, key) for name, section in VALID.items() for key in (section if isinstance(section, dict) else [None])]

set_hypothesis_home_dir(ROOT / ".pytest_cache" / "hypothesis")
SHORT = settings(max_examples=150, derandomize=True, database=None, deadline=None, suppress_health_check=[*HealthCheck])
LONG = settings(SHORT, max_examples=3000)

Tree = dict[str, Any] | list[Any] | str  # what is not a mapping or list is YAML as it stands in the file

scalars = st.one_of(
    st.sampled_from(VALUES),
    st.integers().map(str),
    st.floats().map(lambda number: str(number).replace("nan", ".nan").replace("inf", ".inf")),
    st.booleans().map(json.dumps),
    st.text().map(json.dumps),
    st.text(st.characters(codec="utf-8"), max_size=30),
    st.dates().map(str),
    st.datetimes().map(str),
    st.integers(min_value=2**64, max_value=2**4096).map(hex),
    st.sampled_from(["cnn", "torchvision/resnet18", "digits", "imagenet", "sgd", "1", "0.5", "1e-3", "null", "true"]),
)
keys = st.one_of(st.sampled_from([key for _, key in PLACES if key]), st.sampled_from([*VALID]), scalars)
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=8
)
edits = st.lists(
    st.tuples(st.sampled_from(PLACES), st.sampled_from(["replace", "delete", "rename", "add", "section"]), keys, trees),
    min_size=1,
    max_size=4,
)


def edited(changes: list[tuple[tuple[str, str | None], str, str, Tree]]) -> str:
    """The valid file after the changes, as text."""
    content = json.loads(json.dumps(VALID))
    for (name, key), change, new_key, value in changes:
        section = content.get(name)
        if change == "section" or not isinstance(section, dict) or key not in section:
            content[name] = Raw(value)
        elif change == "replace":
            section[key] = Raw(value)
        elif change == "delete":
            del section[key]
        elif change == "rename":
            section[Raw(new_key)] = section.pop(key)
        else:
            section[Raw(new_key)] = Raw(value)
    return "".join(f"{_flow(name)}: {_flow(section)}\n" for name, section in content.items())


class Raw:
    """A part of the file that is not to be quoted."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree


def _flow(tree: Any) -> str:
    raw = isinstance(tree, Raw)
    inner = tree.tree if raw else tree
    wrap = Raw if raw else lambda part: part
    match inner:
        case dict():
            return "{" + ", ".join(f"{_flow(wrap(key))}: {_flow(wrap(value))}" for key, value in inner.items()) + "}"
        case list():
            return "[" + ", ".join(_flow(wrap(value)) for value in inner) + "]"
        case _:
            return inner if raw else json.dumps(inner)


@contextmanager
def within(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError(f"took more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def plan(content: bytes) -> str | None:
    """The line that refuses the file, or none; asserts that there is nothing else."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder), within(SECONDS):
        Path("params.yaml").write_bytes(content)
        try:
            check.read_params()
        except InputError as error:
            line = str(error)
            assert line.startswith("params.yaml")
            assert line.isprintable()
            assert len(line) <= LONGEST
            return line
        return None


def test_the_valid_file_is_written_and_read_as_it_is():
    assert plan(edited([]).encode()) is None


@SHORT
@given(edits)
def test_a_changed_file_ends_in_a_plan_or_one_line(changes):
    plan(edited(changes).encode("utf-8", "surrogatepass"))


@SHORT
@given(
    st.binary()
    | st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))
    | trees.map(Raw).map(_flow).map(str.encode)
)
@example(b"")
def test_anything_else_ends_in_one_line(content):
    assert plan(content) is not None


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
STAGES = {path.stem for path in (ROOT / "stages").glob("[a-z]*.py")} - {"plot"}  # which reads no parameters
COMMANDS = ("tools.fingerprints", *sorted(f"stages.{name}" for name in STAGES))


@pytest.mark.parametrize("command", COMMANDS)
def test_nine_lines_that_stand_for_billions_of_values_are_one_line_in_every_command(tmp_path, command):
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(BOMB + text.replace("  path: null ", "  path: *i "))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    line = [sys.executable, "-m", command]
    given = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": SECONDS}
    done = subprocess.run(line, **given, preexec_fn=bound_address_space, check=False)
    rule = "holds more than 10,000 values, each alias counted as all that it stands for"
    assert (done.returncode, done.stderr) == (1, f"error: params.yaml: {rule}\n")


def bound_address_space() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))


@pytest.mark.slow
@LONG
@given(edits)
def test_any_of_very_many_changed_files_ends_in_a_plan_or_one_line(changes):
    plan(edited(changes).encode("utf-8", "surrogatepass"))
