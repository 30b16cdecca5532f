"""Kill `dvc repro` at random instants until it has come through, then compare what it made with an undisturbed run.

    python -m tests.faults.killing KILLS FOLDER LOG.csv

Every pipeline is started again after each kill, as a user would. What must hold after every kill: no process is left,
and every artifact that has its final name is whole.
"""

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import onnx
import psutil

from lightweight.checkpointing.run_folder import FINISHED
from lightweight.core.files import write_csv
from lightweight.core.tensor_file import read_tensors
from tests.workspace import QUICK_PRUNING, Workspace, copy_project

KINDS = ("stage", "dvc", "both", "terminate", "ctrl-c")
BROKEN = re.compile("rwlock|dvc.lock")  # which DVC does not write atomically
SHARE = 20  # kills of one pipeline, at most
SLOWEST = 9.0  # seconds from a start to its kill, at most: a stage needs three to import what it needs
SMALL = (
    *QUICK_PRUNING,
    ("  network: cnn\n", "  network: convnet\n"),
    ("  epochs: 10 ", "  epochs: 12 "),
    ("  start: 5 ", "  start: 4 "),
    ("  epochs: 1                # of fine", "  epochs: 3                # of fine"),
    ("  rounds: 30 ", "  rounds: 12 "),
    ("  precision: 0.05 ", "  precision: 1.0 "),
    ("  method: dynamic ", "  method: qat "),
    ("  epochs: 1                # qat", "  epochs: 3                # qat"),
)


@dataclass(frozen=True)
class Kill:
    """What was killed, when and in which stage; how its run had gone on where the one before was killed, if it had.

    `mended` names the file of DVC's own that the kill before had left half written, and `make mend` brought back.
    """

    pipeline: int
    kill: int
    kind: str
    seconds: float
    stage: str
    resumed: str
    mended: str


def small_project(path: Path) -> Workspace:
    """The project with a small network and enough epochs to be killed in."""
    project = copy_project(path)
    project.set_params(*SMALL)
    project.run("dvc", "config", "--local", "core.no_scm", "true")
    return project


def outputs(project: Workspace) -> dict[str, str]:
    """SHA-256 by path of everything that the pipeline is to reproduce."""
    files = [project.path / "dvc.lock", *(project.path / "metrics").glob("*.json")]
    files += [file for name in ("data", "models") for file in (project.path / name).rglob("*") if file.is_file()]
    files += (project.path / "plots").glob("*.csv")
    kept = (file for file in files if file.name != "provenance.json")  # which names the machine
    return {file.relative_to(project.path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in kept}


def leftovers(project: Workspace) -> list[str]:
    """Temporary files, and folders of work that were not cleaned up beside that of the last stage that trains."""
    temporary = [file for file in project.path.rglob(".*.tmp") if ".dvc/" not in file.as_posix()]
    work = [file for file in (project.path / "work").glob("*/*-*") if file.is_dir() and not (file / FINISHED).exists()]
    return [file.relative_to(project.path).as_posix() for file in (*temporary, *work)]


def check_whole(project: Workspace) -> None:
    """Every file with a final name can be read to its end."""
    for file in (project.path / "models").rglob("*"):
        if file.suffix == ".safetensors" and not file.name.startswith("."):
            read_tensors(file)
        elif file.suffix == ".onnx" and not file.name.startswith("."):
            onnx.checker.check_model(onnx.load(file))
    for file in (project.path / "metrics").rglob("*.json"):
        if not file.name.startswith("."):
            json.loads(file.read_text())


class Repro:
    """`dvc repro` in a session of its own, with its output in a file."""

    def __init__(self, project: Workspace, log: Path, *targets: str) -> None:
        self.log, self.start = log, time.monotonic()
        with log.open("w") as output:
            self.process = subprocess.Popen(
                ["dvc", "repro", *targets],
                cwd=project.path,
                env=project.environment | {"SHELL": "/bin/sh"},  # as where no user has logged in
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where this runs by `&`
            )

    def stages(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if any(part.startswith("stages.") for part in command) and os.getpgid(process.pid) == self.process.pid:
                yield process

    def kill(self, kind: str) -> str:
        """Do so, and return the stage that it hit, if any."""
        running = list(self.stages())
        if kind == "stage":
            for process in running:
                process.kill()
        elif kind == "dvc":
            self.process.kill()
        else:
            signals = {"both": signal.SIGKILL, "terminate": signal.SIGTERM, "ctrl-c": signal.SIGINT}
            os.killpg(self.process.pid, signals[kind])
        return running[0].info["cmdline"][-1].removeprefix("stages.") if running else ""

    def wait(self, seconds: float) -> int | None:
        """The exit code when all of it has ended in time, else None."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None and not list(self.stages()):
                return self.process.returncode
            time.sleep(0.02)
        return None

    def said(self) -> str:
        return self.log.read_text()


def survive(project: Workspace, kills: int, draw: random.Random, pipeline: int, log: Path, *targets: str) -> list[Kill]:
    """Run the pipeline, to its end or to the targets, through at most `kills` kills."""
    done: list[Kill] = []
    mended = ""
    while True:
        repro = Repro(project, log, *targets)
        last = len(done) == kills
        again = len({kill.stage for kill in done[-3:]}) == 1 and len(done) > 2  # no checkpoint brings it forward
        code = repro.wait(600 if last else draw.uniform(0.1, SLOWEST * (3 if again else 1)))
        resumed = next((line for line in repro.said().splitlines() if line.startswith("Resuming")), "")
        if code is None:
            assert not last, f"hangs:\n{repro.said()}"
            kind = draw.choice(KINDS if list(repro.stages()) else KINDS[1:])
            seconds = time.monotonic() - repro.start
            stage = repro.kill(kind)
            time.sleep(1)  # its memory is given back before its child is told
            said = repro.said()
            if kind in ("stage", "ctrl-c") and repro.wait(10) is None:  # it hit the last moment of a stage: DVC goes on
                kind, stage = f"{kind}, then both", repro.kill("both")
            assert repro.wait(120) is not None, f"lives on after {kind}: {repro.said()}"  # a slow disk delays a death
            assert kind not in ("dvc", "both") or repro.said() == said, f"works on after {kind}"
            check_whole(project)
            done.append(Kill(pipeline, len(done) + 1, kind, round(seconds, 2), stage, resumed, mended))
            mended = ""
        elif code and not mended and (broken := BROKEN.search(repro.said())):
            project.run("make", "mend")
            mended = broken[0]
        else:
            assert code == 0, repro.said()
            return done


def run_killing(number: int, folder: Path, log: Path) -> None:
    """So many kills, in as many pipelines as they need, with one line each in the log."""
    reference = small_project(folder / "reference")
    reference.run("dvc", "repro")
    expected, draw, kills, pipeline = outputs(reference), random.Random(0), [], 0
    while len(kills) < number:
        pipeline += 1
        project = small_project(folder / str(pipeline))
        kills += survive(project, min(SHARE, number - len(kills)), draw, pipeline, folder / "log.txt")
        assert outputs(project) == expected, project.path
        assert not leftovers(project)
        write_csv(log, [field.name for field in fields(Kill)], map(asdict, kills))
        print(f"{len(kills)} kills in {pipeline} pipelines, {len(expected)} files equal in each", flush=True)


if __name__ == "__main__":
    run_killing(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
