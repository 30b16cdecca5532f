"""`make mend` brings back what DVC left half written, says so, and fails where it cannot."""

from pathlib import Path

import pytest

from lightweight.core.errors import InputError
from tools.mend import mend_lock, mend_locks

LOCK = "schema: '2.0'\nstages:\n  check:\n    cmd: exec python -m stages.check\n    outs: []\n"


@pytest.fixture
def paths(tmp_path) -> tuple[Path, Path]:
    return tmp_path / "dvc.lock", tmp_path / "copy"


@pytest.mark.parametrize("size", [0, 5, 40, len(LOCK) - 3])
def test_a_half_written_lock_becomes_the_copy(paths, size):
    lock, copy = paths
    lock.write_text(LOCK[:size])
    copy.write_text(LOCK)
    assert mend_lock(lock, copy) == f"{lock} is now the copy that the last stage made before it began"
    assert lock.read_text() == LOCK


def test_a_whole_lock_stays_whatever_the_copy_is(paths):
    lock, copy = paths
    lock.write_text(LOCK)
    copy.write_text("")
    assert mend_lock(lock, copy) is None
    assert lock.read_text() == LOCK
    lock.unlink()
    assert mend_lock(lock, copy) is None


@pytest.mark.parametrize("content", [None, LOCK[:40]])
def test_without_a_whole_copy_it_fails_and_leaves_the_lock(paths, content):
    lock, copy = paths
    lock.write_text(LOCK[:20])
    if content:
        copy.write_text(content)
    with pytest.raises(InputError, match=r"half written, and .* is no whole copy of it"):
        mend_lock(lock, copy)
    assert lock.read_text() == LOCK[:20]


@pytest.mark.parametrize(("content", "whole"), [('{"data": {', False), ("", False), ("[]", False), ("{}", True)])
def test_a_half_written_file_of_locks_is_removed(tmp_path, content, whole):
    path = tmp_path / "rwlock"
    path.write_text(content)
    assert mend_locks(path) == (None if whole else f"removed {path}, which was half written")
    assert path.exists() == whole
    path.unlink(missing_ok=True)
    assert mend_locks(path) is None
