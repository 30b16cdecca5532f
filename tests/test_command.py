import os
import signal
import subprocess
import sys

import pytest

STAGE = """
from lightweight.command import run
from lightweight.errors import InputError
def main():
    {body}
run(main)
"""
SLEEPER = """
import os, time
from lightweight.command import run
def main():
    print(os.getpid(), flush=True)
    time.sleep(60)
run(main)
"""
PARENT = """
import subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1]])
"""


@pytest.fixture
def finish(start_python):
    def finish(body: str) -> tuple[int, str, str]:
        process = start_python(STAGE.format(body=body))
        output, errors = process.communicate(timeout=30)
        return process.returncode, output, errors

    return finish


def test_a_good_run_prints_what_it_prints_and_ends_with_0(finish):
    assert finish("print('done')") == (0, "done\n", "")


def test_a_bad_input_is_one_line_and_exit_code_1(finish):
    assert finish("raise InputError('params.yaml: seed: missing')") == (1, "", "error: params.yaml: seed: missing\n")


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("open('/nowhere/at/all')", "error: /nowhere/at/all: No such file or directory\n"),
        ("raise OSError(28, 'No space left on device')", "error: input or output: No space left on device\n"),
        ("raise OSError('cannot read')", "error: input or output: cannot read\n"),
    ],
)
def test_a_failing_file_system_is_one_line_and_exit_code_1(finish, body, line):
    assert finish(body) == (1, "", line)


def test_a_fault_of_the_program_keeps_its_traceback(finish):
    code, _, errors = finish("raise ValueError('a bug')")
    assert code == 1
    assert errors.startswith("Traceback")
    assert errors.endswith("ValueError: a bug\n")


def test_ctrl_c_is_one_line_and_the_exit_code_of_shells(finish):
    line = "interrupted: the same command goes on from here\n"
    assert finish("import os, signal; os.kill(os.getpid(), signal.SIGINT)") == (130, "", line)


@pytest.mark.parametrize("root", [True, False])
def test_a_copy_of_the_lock_is_kept_in_the_workspace_and_not_in_dvcs_copies_of_it(
    tmp_path, monkeypatch, start_python, root
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.lock").write_text("stages:\n")
    process = start_python(STAGE.format(body="pass"), DVC_ROOT=str(tmp_path if root else tmp_path.parent))
    process.communicate(timeout=30)
    assert (tmp_path / "work/dvc.lock").exists() == root
    assert not root or (tmp_path / "work/dvc.lock").read_text() == "stages:\n"


@pytest.mark.skipif(sys.platform != "linux", reason="processes die with their parent on Linux only")
def test_a_stage_dies_with_the_process_that_started_it(start_python):
    parent = start_python(PARENT, SLEEPER)
    stage = int(parent.stdout.readline())
    try:
        parent.kill()
        rest, _ = parent.communicate(timeout=10)  # ends when no process holds the other end
        assert (parent.returncode, rest) == (-signal.SIGKILL, "")
    except subprocess.TimeoutExpired:
        os.kill(stage, signal.SIGKILL)
        pytest.fail("the stage lives on")
