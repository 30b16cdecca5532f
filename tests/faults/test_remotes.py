"""What DVC remotes do is what the log says, and the log says of no wrong byte that nothing tells of.

`make remotes` tries them and writes the log.
"""

from dataclasses import replace

import pytest

from tests.contract import ROOT
from tests.faults.remote_machines import Machines, prepare
from tests.faults.remote_servers import REMOTES
from tests.faults.remotes import CHECK, CUT, LOG, UNCHECKED, Row, available, broken_promises, read_rows, try_remote
from tests.workspace import Workspace

ROWS = read_rows(LOG)


@pytest.mark.parametrize("name", REMOTES)
def test_every_kind_of_remote_is_in_the_log_with_every_trial(name):
    trials = [row.trial for row in ROWS if row.remote == name]
    assert set(CUT) <= set(trials) or name == "folder"
    assert [trial for trial in trials if trial not in CUT] == [row.trial for row in ROWS if row.remote == "folder"]


def test_the_log_keeps_every_promise():
    assert broken_promises(ROWS) == []


@pytest.mark.parametrize(
    "change",
    [
        ("pull of a damaged object, verify", {"code": 0, "identical": "no"}),
        ("pull, cut off in the middle", {"identical": "no"}),
        ("pull, cut off in the middle", {"code": 0}),
        ("repro after pull", {"seen": "runs train"}),
        ("repro --pull after a missing object", {"identical": "whole"}),
        (CHECK, {"code": 0}),
    ],
    ids=str,
)
def test_a_row_of_wrong_bytes_or_of_work_done_twice_breaks_a_promise(change):
    trial, values = change
    (row,) = [row for row in ROWS if row.remote == "s3-moto" and row.trial == trial]
    broken = replace(row, **values)
    assert broken_promises([broken]) == [broken]


def test_the_damaged_object_that_nobody_checks_is_the_only_exception():
    assert {row.trial for row in ROWS if row.identical == "no"} == {UNCHECKED, CHECK}


@pytest.fixture(scope="module")
def machines(finished, tmp_path_factory) -> Machines:
    Workspace(ROOT).run("make", ".venv/remotes/installed")
    return prepare(tmp_path_factory.mktemp("machines"), finished.workspace.path)


@pytest.mark.slow
@pytest.mark.parametrize("name", REMOTES)
def test_a_remote_does_what_the_log_says(name, machines, tmp_path):
    if name not in available():
        pytest.skip("needs an sshd")
    found, logged = try_remote(name, machines, tmp_path), [row for row in ROWS if row.remote == name]
    assert broken_promises(found) == []
    assert list(map(without_chance, found)) == list(map(without_chance, logged))


def without_chance(row: Row) -> Row:
    """Which of the transfers that a cut breaks off DVC names, and by what exit code, is chance."""
    return replace(row, seen="", code=1) if row.trial in CUT and row.code else row
