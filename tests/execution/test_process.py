import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lightweight.execution import process as command
from stages import check
from tests.contract import ROOT

STAGE = """
from lightweight.execution.process import run_stage
from lightweight.core.errors import InputError
def main():
    {body}
run_stage(main)
"""
SLEEPER = """
import os, time
from lightweight.execution.process import run_stage
def main():
    print(os.getpid(), flush=True)
    time.sleep(60)
run_stage(main)
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


@pytest.mark.parametrize("body", ["print('some')", "print('some', flush=True)", "print('much' * 100_000)"])
def test_a_run_whose_reader_has_ended_ends_quietly(start_python, body):
    process = start_python(STAGE.format(body=body))
    process.stdout.close()
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (128 + signal.SIGPIPE, "")


def test_another_broken_pipe_is_one_line(finish):
    body = "raise BrokenPipeError(32, 'Broken pipe')"
    assert finish(body) == (1, "", "error: [Errno 32] Broken pipe\n")


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


@pytest.mark.parametrize("argument", ["--epochs=3", "params.yaml", "-S"])
def test_a_stage_refuses_arguments_and_names_where_its_parameters_are(tmp_path, argument):
    done = run_check(tmp_path, argument)
    assert (done.returncode, done.stdout, list(tmp_path.glob("data"))) == (2, "", [])
    assert "its parameters stand in params.yaml" in done.stderr
    assert done.stderr.endswith(f"error: unrecognized arguments: {argument}\n")


def test_help_prints_what_a_stage_does_reads_and_writes_and_runs_nothing(tmp_path):
    done = run_check(tmp_path, "--help")
    assert (done.returncode, done.stderr, list(tmp_path.glob("data"))) == (0, "", [])
    assert done.stdout.startswith("usage: python -m stages.check")
    assert check.__doc__ in done.stdout


def run_check(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run the stage `check` with arguments in a folder that has its params.yaml."""
    shutil.copy2(ROOT / "params.yaml", folder)
    command, environment = [sys.executable, "-m", "stages.check", *arguments], os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_other_commands_keep_their_own_arguments(start_python):
    process = start_python(STAGE.format(body="import sys; print(sys.argv[1])"), "--mine")
    assert process.communicate(timeout=30) == ("--mine\n", "")


STARTING = """
import os, subprocess, sys
environment = os.environ | {"DVC_ROOT": os.getcwd()}
process = subprocess.Popen([sys.executable, "-m", "stages.slow"], env=environment, stdout=subprocess.PIPE)
print(process.stdout.readline().decode(), end="", flush=True)
process.wait()
"""


@pytest.fixture
def importing(tmp_path, monkeypatch):
    """A stage in the middle of an import that swallows exceptions: (its process id, the process that started it)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stages").mkdir()
    shutil.copy2(ROOT / "stages/__init__.py", tmp_path / "stages")
    shutil.copy2(ROOT / "params.yaml", tmp_path)
    (tmp_path / "stages/slow.py").write_text(IMPORTING)
    parent = subprocess.Popen(
        [sys.executable, "-c", STARTING],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield int(parent.stdout.readline()), parent
    with contextlib.suppress(ProcessLookupError):
        os.killpg(parent.pid, signal.SIGKILL)
    parent.communicate(timeout=30)


IMPORTING = """
import os, time
print(os.getpid(), flush=True)
for _ in range(600):
    try:
        time.sleep(0.1)
    except BaseException:
        pass
"""


def has_ended(process: int) -> bool:
    for _ in range(100):
        try:
            if psutil.Process(process).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="processes die with their parent on Linux only")
def test_a_stage_that_still_imports_dies_with_the_process_that_started_it(importing):
    stage, parent = importing
    parent.kill()
    assert has_ended(stage)


def test_ctrl_c_ends_a_stage_that_still_imports_with_one_line(importing):
    stage, parent = importing
    os.kill(stage, signal.SIGINT)
    assert has_ended(stage)
    assert parent.communicate(timeout=30)[1] == "Interrupted: the same command goes on from here\n"


@pytest.mark.skipif(sys.platform != "linux", reason="processes die with their parent on Linux only")
def test_a_stage_whose_parent_was_gone_before_it_could_look_ends(monkeypatch):
    monkeypatch.setenv("DVC_ROOT", "/project")
    assert not command._is_orphan(os.getppid())
    for line, orphan in ((b"/sbin/init", True), (b"/usr/bin/python3 /usr/bin/dvc repro", False), (b"dvc repro", False)):
        monkeypatch.setattr(Path, "read_bytes", lambda path, line=line: line)
        assert command._is_orphan(1) == orphan
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"/usr/lib/systemd/systemd --user")
    for name, orphan in (("systemd", True), ("tini", True), ("bash", False)):
        monkeypatch.setattr(Path, "read_text", lambda path, name=name: f"{name}\n")
        assert command._is_orphan(7) == orphan
    monkeypatch.setattr(Path, "read_text", lambda path: (_ for _ in ()).throw(FileNotFoundError))
    assert command._is_orphan(7), "the parent has gone, too"
    monkeypatch.delenv("DVC_ROOT")
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"/sbin/init")
    assert not command._is_orphan(1), "nobody's stage may be started by init"


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
