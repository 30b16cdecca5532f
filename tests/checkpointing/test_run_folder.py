"""A run finds its own folder again, never that of another run, and never while another process uses it."""

import os
import signal
import sys
from pathlib import Path

import pytest

from lightweight.checkpointing import run_folder
from lightweight.checkpointing.run_folder import FINISHED, acquire_run_folder, fingerprint, remove_old_runs
from tests.examples import train_params

HOLDER = """
import sys, time
from pathlib import Path
from lightweight.checkpointing.run_folder import acquire_run_folder
print(acquire_run_folder(Path(sys.argv[1]), "0" * 16)[0].name, flush=True)
time.sleep(60)
"""
DIGEST = """
import importlib, os, sys
from pathlib import Path
sys.path.insert(0, os.getcwd())
importlib.import_module("own")
from lightweight.checkpointing.run_folder import fingerprint
print(fingerprint({}, []))
"""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(run_folder, "WAIT_SECONDS", 0.1)


@pytest.fixture
def stage(tmp_path) -> Path:
    return tmp_path / "work/train"


def test_the_digest_depends_on_parameters_and_contents_and_not_on_paths_or_order_of_keys(tmp_path):
    def digest(content: str, name: str = "a", **params: object) -> str:
        path = tmp_path / name
        path.write_text(content)
        return fingerprint(params, [path])

    first = digest("data", seed=0, train=train_params())
    assert len(first) == 16
    assert digest("data", name="b", train=train_params(), seed=0) == first
    others = [
        digest("date", seed=0, train=train_params()),
        digest("data", seed=1, train=train_params()),
        digest("data", seed=0, train=train_params(lr=0.0030001)),
        digest("data", seed=0),
    ]
    assert len({first, *others}) == 5


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("cpu_type", lambda: "Another CPU"),
        ("package_versions", lambda: {"torch": "9.9"}),
        ("sys.version", "9.9"),
    ],
)
def test_the_digest_depends_on_the_machine(monkeypatch, attribute, value):
    first = fingerprint({}, [])
    monkeypatch.setattr(f"lightweight.checkpointing.run_folder.{attribute}", value)
    assert fingerprint({}, []) != first


def test_the_digest_does_not_depend_on_the_cpu_where_the_arithmetic_is_portable(monkeypatch):
    params = {"arithmetic": "portable"}, {"arithmetic": "native"}
    portable, native = (fingerprint(each, []) for each in params)
    monkeypatch.setattr("lightweight.checkpointing.run_folder.cpu_type", lambda: "Another CPU")
    assert fingerprint(params[0], []) == portable != native != fingerprint(params[1], [])


def test_the_digest_depends_on_the_code_in_the_folder_that_is_loaded(tmp_path, monkeypatch, start_python):
    monkeypatch.chdir(tmp_path)

    def digest(content: str) -> str:
        (tmp_path / "own.py").write_text(content)
        output, errors = start_python(DIGEST).communicate(timeout=60)
        assert not errors
        return output

    assert digest("x = 1") == digest("x = 1") != digest("x = 2")


def test_packages_of_an_environment_inside_the_folder_are_not_its_loaded_sources():
    files = run_folder._loaded_sources()
    assert files
    assert not [file for file in files if file.is_relative_to(sys.prefix)]


def test_equal_runs_at_the_same_time_have_folders_of_their_own(stage):
    first, one = acquire_run_folder(stage, "0" * 16)
    second, two = acquire_run_folder(stage, "0" * 16)
    other, three = acquire_run_folder(stage, "1" * 16)
    assert len({first, second, other}) == 3
    for descriptor in (one, two, three):
        os.close(descriptor)
    again, one = acquire_run_folder(stage, "0" * 16)
    assert again == first
    os.close(one)


def test_the_folder_of_a_killed_process_is_free_and_that_of_a_living_one_is_not(stage, start_python):
    process = start_python(HOLDER, stage)
    name = process.stdout.readline().strip()
    other, descriptor = acquire_run_folder(stage, "0" * 16)
    os.close(descriptor)
    assert other.name != name
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=10)
    same, descriptor = acquire_run_folder(stage, "0" * 16)
    os.close(descriptor)
    assert same.name == name


def test_only_folders_of_runs_that_no_process_uses_are_removed(stage):
    current, one = acquire_run_folder(stage, "0" * 16)
    locked, two = acquire_run_folder(stage, "1" * 16)
    (locked / FINISHED).touch()
    finished, three = acquire_run_folder(stage, "2" * 16)
    (finished / FINISHED).touch()
    os.close(three)
    foreign = stage.parent / "cost" / "notes"
    foreign.mkdir(parents=True)
    (stage.parent / "file").touch()
    remove_old_runs(stage.parent, current)
    os.close(one), os.close(two)
    assert current.exists()
    assert locked.exists()
    assert foreign.exists()
    assert not finished.exists()
