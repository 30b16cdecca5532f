"""Environments of the peers, and their scripts in processes of their own."""

import hashlib
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from comparisons.peers.trials import REQUIREMENTS, Trial
from lightweight.core.errors import InputError
from lightweight.core.files import write_bytes

ENVIRONMENTS = Path(".venv/peers")
OWN = "lightweight"  # the environment that this runs in
QUIET = {
    "ORT_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "OLIVE_DISABLE_TELEMETRY": "1", "YOLO_OFFLINE": "true",
    "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "random",
}  # fmt: skip
MAX_REASON = 300


@dataclass(frozen=True)
class Run:
    """Hold what became of a script: why it failed, or nothing; seconds; and the hash of the files that it left."""

    error: str
    seconds: float
    cpu_seconds: float
    digest: str


def python_of(environment: str) -> Path:
    """Make the environment of a peer unless it is there as its requirements say, and return its interpreter.

    Raises InputError with pip's reason where the requirements cannot be installed.
    """
    if environment == OWN:
        return Path(sys.executable)
    folder = ENVIRONMENTS / environment
    python, installed = folder / "bin/python", folder / "installed"
    requirements = REQUIREMENTS / f"{environment}.txt"
    if not installed.exists() or installed.read_bytes() != requirements.read_bytes():
        shutil.rmtree(folder, ignore_errors=True)
        print(f"{environment}  is installed to {folder}", flush=True)
        for command in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise InputError(f"{requirements}: cannot be installed: {reason(done.stderr)}")
        write_bytes(installed, requirements.read_bytes())
    return python.absolute()


def run_script(trial: Trial, python: Path, given: Path, result: Path) -> Run:
    """Run the script of a trial on the folder `given`, within its CPU seconds; its files go to the folder `result`."""
    shutil.rmtree(result, ignore_errors=True)
    result.mkdir(parents=True)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [str(python), str(trial.path.absolute()), str(given.absolute()), str(result.absolute())]
    done = run_limited(command, trial.cpu_seconds, result)  # some tools write into the working folder
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    (result / "log.txt").write_text(done.stdout + done.stderr)
    error = ""
    if done.returncode in (-24, -9):
        error = f"not done after {trial.cpu_seconds} CPU seconds"
    elif done.returncode:
        error = reason(done.stderr) or f"ended with exit code {done.returncode}"
    elif not (result / trial.output).exists():
        error = f"left no {trial.output}"
    return Run(error, round(seconds, 1), round(cpu_seconds, 1), digest(result, trial.output))


def run_limited(command: list[str], cpu_seconds: int, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder` without telemetry, within a limit of CPU seconds, and return what it printed."""
    limits = (cpu_seconds, cpu_seconds + 5)
    own = {key: value for key, value in os.environ.items() if not key.startswith("LIGHTWEIGHT_")}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=own | QUIET | {"PYTHONPATH": str(Path.cwd())},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, limits),
    )


def reason(errors: str) -> str:
    """Return the last line of an error's text that says something, in at most `MAX_REASON` characters."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    telling = [line for line in lines if "Error" in line or "ERROR" in line or "Exception" in line]
    return " ".join((telling or lines or [""])[-1].split())[:MAX_REASON]


def digest(folder: Path, output: str) -> str:
    """Hash the files of a result: `output`, and those beside it of the same name before the suffix."""
    total = hashlib.sha256()
    for path in sorted(folder.glob(f"{Path(output).stem}.*")):
        total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()
