"""One experiment on a worker: `dvc exp run` in a clone of the commit, whose result comes home as a git bundle.

This module is sent to workers as it is, which need nothing but Python, dask, git, and the project's `python` and `dvc`.
The next experiment of the same thread runs in the same clone, and finds the stages done that it shares with the last.
"""

import os
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

TOKEN = Path("work/sweep/token")
OF_DASK = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_")  # set for its tasks
OF_ANOTHER = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "DVC_ROOT")  # repository than the clone
DIE_WITH_WORKER = (
    "import os, sys; from lightweight.execution.process import die_with_parent; die_with_parent(); "
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


@dataclass(frozen=True)
class Source:
    """Hold what all experiments of a sweep begin with, and where the user keeps it."""

    commit: str
    bundle: str  # name of the file that holds the commit, in the folder of each worker
    author: tuple[str, str]  # name and address, of the commits that experiments are
    root: Path  # the user's repository
    cache: Path  # its DVC cache
    token: str  # content of the file `TOKEN` there

    def is_seen(self) -> bool:
        """Tell whether this worker sees the user's files: it runs on the same machine, or they share a file system."""
        file = self.root / TOKEN
        return file.exists() and file.read_text() == self.token


@dataclass(frozen=True)
class Job:
    """Hold one experiment that is to be run."""

    name: str
    overrides: tuple[str, ...]  # KEY=VALUE, as `dvc exp run --set-param` takes them
    processes: int | None  # of a stage; None leaves the number to the worker
    source: Source
    command: tuple[str, ...] = ("dvc", "exp", "run")


@dataclass(frozen=True)
class Outcome:
    """Hold what came of an experiment: its git bundle, or the reason of its failure in a line, and all output."""

    name: str
    seconds: float
    output: str
    bundle: bytes = b""
    failure: str = ""
    stored: bool = True  # outputs are in the user's DVC cache or in the DVC remote


class CommandFailed(Exception):
    """Failure of a command; the text is its output."""


def run_on_worker(job: Job) -> Outcome:
    """Run an experiment in the folder of this worker of dask."""
    from distributed import get_worker

    return run_experiment(job, Path(get_worker().local_directory))


def run_experiment(job: Job, folder: Path) -> Outcome:
    """Run an experiment in this thread's clone below `folder`."""
    begin = time.monotonic()
    clone = folder / f"{job.source.commit[:12]}-{threading.get_ident()}"
    try:
        bundle, output, stored = reproduce(job, folder, clone)
        return Outcome(job.name, time.monotonic() - begin, output, bundle, stored=stored)
    except CommandFailed as error:
        return Outcome(job.name, time.monotonic() - begin, str(error), failure=find_reason(str(error)))


def reproduce(job: Job, folder: Path, clone: Path) -> tuple[bytes, str, bool]:
    """Run the experiment; return its bundle, the output of DVC, and whether the outputs are stored for the user."""
    source, shared = job.source, job.source.is_seen()
    environment = make_environment(job, clone, shared)

    def call(*command: str) -> str:
        return run_command(command, clone, environment)

    if not clone.exists():
        make_clone(source, folder, clone, environment)
    call("git", "checkout", "--quiet", source.commit, "--", "params.yaml")  # the rest is as the last experiment left it
    find = ("git", "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{job.name}")
    for reference in call(*find).split():  # of an earlier run, whose result got lost on the way home
        call("git", "update-ref", "-d", reference)
    remote = not shared and bool(call("dvc", "remote", "list").strip())
    changes = [word for override in job.overrides for word in ("--set-param", override)]
    launcher = ("python", "-c", DIE_WITH_WORKER)
    output = call(*launcher, *job.command, "--name", job.name, *changes, *(["--pull"] if remote else []))
    if remote:
        call(*launcher, "dvc", "push", "--run-cache")
    file = folder / f"{job.name}.bundle"
    call("git", "bundle", "create", "--quiet", str(file), *call(*find).split(), f"^{source.commit}")
    bundle = file.read_bytes()
    file.unlink()
    return bundle, output, shared or remote


def make_clone(source: Source, folder: Path, clone: Path, environment: dict[str, str]) -> None:
    """Make a clone of the commit; where the user's files are seen, with the user's DVC cache and raw data."""
    part = folder / f"{clone.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for command in (
        ("git", "init", "--quiet"),
        ("git", "fetch", "--quiet", str(folder / source.bundle), "HEAD"),
        ("git", "checkout", "--quiet", "--detach", source.commit),
        ("git", "config", "user.name", source.author[0]),
        ("git", "config", "user.email", source.author[1]),
    ):
        run_command(command, part, environment)
    if source.is_seen():
        own = source.root / ".dvc/config.local"
        if own.exists():
            shutil.copy(own, part / ".dvc/config.local")
        run_command(("dvc", "config", "--local", "cache.dir", str(source.cache)), part, environment)
        if (source.root / "data/raw").exists():  # which params.yaml may name: images, weights, a teacher
            (part / "data").mkdir(exist_ok=True)
            (part / "data/raw").symlink_to((source.root / "data/raw").resolve())
    part.rename(clone)


def make_environment(job: Job, clone: Path, shared: bool) -> dict[str, str]:
    """Make the environment of an experiment: the project's programs first, and a private index for DVC."""
    environment = {name: value for name, value in os.environ.items() if name not in OF_DASK + OF_ANOTHER}
    root = job.source.root
    environment["PATH"] = f"{root / '.venv/bin'}{os.pathsep}{environment.get('PATH', os.defpath)}"
    environment |= {"DVC_SITE_CACHE_DIR": f"{clone}-site", "DVC_NO_ANALYTICS": "1"}
    if shared:
        environment["LIGHTWEIGHT_DATA"] = str(root / (environment.get("LIGHTWEIGHT_DATA") or "data/raw"))
    if job.processes:
        environment.setdefault("LIGHTWEIGHT_PROCESSES", str(job.processes))
    return environment


def run_command(command: tuple[str, ...], folder: Path, environment: dict[str, str]) -> str:
    """Run a command and return its output. Raises CommandFailed with it."""
    program = shutil.which(command[0], path=environment["PATH"])
    if not program:
        raise CommandFailed(f"error: {command[0]}: no such program on the worker {os.uname().nodename}")
    done = subprocess.run(
        (program, *command[1:]),
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise CommandFailed(done.stdout or f"{command[0]} ended with exit code {done.returncode}")
    return done.stdout


def find_reason(output: str) -> str:
    """Find the line of an output that tells the reason of a failure: a stage's own, else DVC's, else the last one."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for mark in ("error: ", "ERROR: "):
        if found := [line for line in lines if line.startswith(mark)]:
            return found[-1].removeprefix(mark)
    return lines[-1]
