"""A whole run opens no port, calls nobody, and leaves no trace of the machine and its user in what it writes."""

import json
import platform
import shutil
import signal
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.contract import ROOT
from tests.faults.silence import BIND_LISTEN_CONNECT
from tests.workspace import Workspace, copy_project

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in BIND_LISTEN_CONNECT, reason="the kernel's filter is Linux's"
)
USER, HOST = "rumpelstilzchen", "wolpertinger"
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
ARTIFACTS = ("data", "models", "metrics", "plots", "dvc.lock")
COMMON = ("localhost", "host", "linux", "debian", "ubuntu", "runner", "build")
BIND = "import socket; socket.socket().bind(('127.0.0.1', 0))"
BIND_BELOW_PYTHON = "import ctypes, socket; ctypes.CDLL(None).bind(socket.socket().fileno(), bytes(16), 16)"
CONNECT_BELOW_PYTHON = "import ctypes, socket; ctypes.CDLL(None).connect(socket.socket().fileno(), bytes(16), 16)"
LOCAL = "import socket; socket.socket(socket.AF_UNIX).connect_ex('/nowhere')"


@dataclass(frozen=True)
class Run:
    workspace: Workspace
    home: Path
    host: str | None
    events: list[tuple[str, str, list[str]]]  # name, arguments, command


def silent(workspace: Workspace, log: Path, *command: str, code: int = 0, host: str = "-", namespace=()) -> list:
    """The events of a command in an environment of a path, a user and a home: no variable switches anything off."""
    home = log.parent / f"home-of-{USER}"
    home.mkdir(exist_ok=True)
    given = {"PATH": workspace.environment["PATH"], "HOME": str(home), "DVC_SITE_CACHE_DIR": str(log.parent / "site")}
    given |= dict.fromkeys(("USER", "LOGNAME", "USERNAME"), USER)
    clean = ("env", "-i", *(f"{name}={value}" for name, value in given.items()))
    launcher = (sys.executable, "-m", "tests.faults.silence", str(log), host)
    workspace.run(*namespace, *clean, *launcher, *command, code=code)
    return [tuple(json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []


def own_host_name() -> tuple[tuple[str, ...], str]:
    """A command that allows another host name to what it runs; without one, `-`."""
    for command in (("unshare", "--uts"), ("unshare", "--uts", "--map-root-user")):
        if shutil.which("unshare") and not subprocess.run((*command, "true"), capture_output=True).returncode:
            return command, HOST
    return (), "-"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("network")
    workspace = copy_project(folder / "project")
    workspace.run("git", "init", "--quiet")
    workspace.set_params(
        ("  network: cnn\n", "  network: convnet\n"),
        ("  epochs: 10 ", "  epochs: 1 "),
        ("  start: 5 ", "  start: null "),
        ("  rounds: 30 ", "  rounds: 10 "),
        ("  batch_sizes: [1, 64]", "  batch_sizes: [1]"),
        ("  max_accuracy_drop: 0.01 ", "  max_accuracy_drop: 1.0 "),
    )
    namespace, host = own_host_name()
    events = silent(workspace, folder / "log", "dvc", "repro", host=host, namespace=namespace)
    return Run(workspace, folder / f"home-of-{USER}", host if namespace else platform.node(), events)


def test_nothing_listens_and_nothing_connects(run):
    started = {command[-1].removeprefix("stages.") for event, _, command in run.events if event == "start"}
    assert {"repro", *STAGES} <= started, "the hook sees every process"
    assert [event for event in run.events if event[0] != "start"] == []


def test_nothing_that_identifies_a_machine_is_left_in_the_home_folder(run):
    left = {path.relative_to(run.home).parts[:2] for path in run.home.rglob("*") if path.is_file()}
    assert left <= {(".cache", "matplotlib"), (".config", "matplotlib")}


def test_no_artifact_names_the_user_or_a_path(run):
    assert found(run, {"convnet"}), "a name that is written is found"
    packages = sysconfig.get_path("purelib")
    assert found(run, {USER, str(run.home), str(run.workspace.path), packages}) == []


def test_no_artifact_names_the_host(run):
    if len(run.host) < 4 or run.host in COMMON:
        pytest.skip(f"the host's name {run.host!r} is a common word, and it cannot have another one for a run here")
    assert found(run, {run.host}) == []


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
