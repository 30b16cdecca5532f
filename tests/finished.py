"""The default pipeline from an empty cache, run once for all tests, as a user without a network; a short benchmark."""

import json
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.faults.silence import BIND_LISTEN_CONNECT
from tests.workspace import QUICK_BENCHMARK, Workspace, commit_all, copy_project

USER, HOST = "rumpelstilzchen", "wolpertinger"


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
    given |= {"OMP_WAIT_POLICY": "PASSIVE"}  # which changes no byte
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


def run_default(folder: Path) -> Run:
    """A workspace after `dvc repro`, its results committed."""
    workspace = copy_project(folder / "project")
    workspace.set_params(*QUICK_BENCHMARK)
    commit_all(workspace)
    namespace, host, events = (), "-", []
    if sys.platform == "linux" and platform.machine() in BIND_LISTEN_CONNECT:
        namespace, host = own_host_name()
        events = silent(workspace, folder / "log", "dvc", "repro", host=host, namespace=namespace)
    else:
        workspace.run("dvc", "repro")
    workspace.run(sys.executable, "-m", "tools.report")
    workspace.run("git", "add", ".")
    workspace.run("git", "commit", "--quiet", "-m", "results")
    return Run(workspace, folder / f"home-of-{USER}", host if namespace else platform.node(), events)
