"""A whole run opens no port, calls nobody, and leaves no trace of the machine and its user in what it writes."""

import platform
import shutil
import signal
import sys
import sysconfig
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.contract import ROOT
from tests.faults.silence import BIND_LISTEN_CONNECT
from tests.finished import USER, Run, silent
from tests.workspace import Workspace

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in BIND_LISTEN_CONNECT, reason="the kernel's filter is Linux's"
)
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
ARTIFACTS = ("data", "models", "metrics", "plots", "dvc.lock")
COMMON = ("localhost", "host", "linux", "debian", "ubuntu", "runner", "build")
BIND = "import socket; socket.socket().bind(('127.0.0.1', 0))"
BIND_BELOW_PYTHON = "import ctypes, socket; ctypes.CDLL(None).bind(socket.socket().fileno(), bytes(16), 16)"
CONNECT_BELOW_PYTHON = "import ctypes, socket; ctypes.CDLL(None).connect(socket.socket().fileno(), bytes(16), 16)"
LOCAL = "import socket; socket.socket(socket.AF_UNIX).connect_ex('/nowhere')"


def test_nothing_listens_and_nothing_connects(finished):
    started = {command[-1].removeprefix("stages.") for event, _, command in finished.events if event == "start"}
    assert {"repro", *STAGES} <= started, "the hook sees every process"
    assert [event for event in finished.events if event[0] != "start"] == []


def test_nothing_that_identifies_a_machine_is_left_in_the_home_folder(finished):
    left = {path.relative_to(finished.home).parts[:2] for path in finished.home.rglob("*") if path.is_file()}
    assert left <= {(".cache", "matplotlib"), (".config", "matplotlib")}


def test_no_artifact_names_the_user_or_a_path(finished):
    assert found(finished, {"cnn"}), "a name that is written is found"
    packages = sysconfig.get_path("purelib")
    assert found(finished, {USER, str(finished.home), str(finished.workspace.path), packages}) == []


def test_no_artifact_names_the_host(finished):
    if len(finished.host) < 4 or finished.host in COMMON:
        pytest.skip(
            f"the host's name {finished.host!r} is a common word, and it cannot have another one for a run here"
        )
    assert found(finished, {finished.host}) == []


def found(run: Run, traces: set[str]) -> list[str]:
    written = [run.workspace.path / name for name in ARTIFACTS]
    files = [path for top in written for path in (top, *top.rglob("*")) if path.is_file()]
    assert {".safetensors", ".onnx", ".json", ".csv", ".png", ".html", ".lock"} <= {path.suffix for path in files}
    return [f"{trace} in {path}" for path in files for trace in traces if trace.encode() in path.read_bytes()]


@pytest.mark.parametrize("code", [BIND, BIND_BELOW_PYTHON, CONNECT_BELOW_PYTHON])
def test_a_process_that_touches_the_network_is_ended(tmp_path, code):
    project = stage_with(tmp_path, code)
    events = silent(project, tmp_path / "log", sys.executable, "-m", "stages.loud", code=-signal.SIGSYS)
    assert ("socket.bind" in {event for event, _, _ in events}) == (code == BIND)


def test_a_stage_that_touches_the_network_fails_the_run(tmp_path):
    project = stage_with(tmp_path, BIND)
    (project.path / "dvc.yaml").write_text("stages:\n  loud:\n    cmd: python -m stages.loud\n")
    project.run("dvc", "init", "--no-scm", "--force", "--quiet")
    events = silent(project, tmp_path / "log", "dvc", "repro", code=255)
    (bind,) = [arguments for event, arguments, _ in events if event == "socket.bind"]
    assert "('127.0.0.1', 0)" in bind


def test_sockets_of_the_own_machine_pass_and_are_noted(tmp_path):
    project = stage_with(tmp_path, LOCAL)
    events = silent(project, tmp_path / "log", sys.executable, "-m", "stages.loud")
    assert "socket.connect" in {event for event, _, _ in events}


def stage_with(folder: Path, code: str) -> Workspace:
    project = folder / "project"
    for package in ("stages", "tests", "tests/faults"):
        (project / package).mkdir(parents=True)
    shutil.copy2(Path(__file__).with_name("silence.py"), project / "tests/faults")
    (project / "stages/loud.py").write_text(code)
    return Workspace(project)
