"""A fresh clone of HEAD with an empty cache makes the committed dvc.lock again, or this says what differs and why.

    python -m tools.verify.fresh_clone

Exit code 0: every artifact and metric is identical. 3: other bytes on another type of processor or thread count than
metrics/provenance.json names, and metrics that agree: accuracies whose intervals overlap, equal counts, sizes within
1 %. 1: anything else, damaged files of this workspace included.

Reads   HEAD, the workspace's outputs and its DVC cache
Writes  work/verify.log, which stays after a failure
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lightweight.core.errors import InputError
from lightweight.core.files import read_json
from lightweight.core.process import run_stage
from lightweight.reporting.provenance import checksum, origin
from tools.verify.integrity import damaged_artifacts, damaged_objects, remedy
from tools.verify.verdict import FAILED, Lock, Run, judge, outs

LOG = Path("work/verify.log")
RECORD = Path("metrics/provenance.json")
LAST_LINES = 15
LOCAL = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set in a hook, where they mean the one repository


def main() -> None:
    for ending in (signal.SIGTERM, signal.SIGHUP):  # the folder is removed then, too
        signal.signal(ending, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="lightweight-verify-") as scratch:
            code, words = verify(Path.cwd(), Path(scratch), Path.cwd() / LOG)
    except KeyboardInterrupt:
        code, words = 130, "INTERRUPTED: nothing is verified"
    print(words, flush=True)
    sys.exit(code)


def verify(root: Path, scratch: Path, log: Path) -> tuple[int, str]:
    """Exit code and verdict on the workspace and on HEAD; prints what they rest on."""
    if not (root / ".git").exists():
        raise InputError("verify clones a commit, and this is a plain folder without .git")
    commit = git(root, "rev-parse", "HEAD").strip()
    if git(root, "status", "--porcelain").strip():
        print(f"The workspace has changes that are not committed; what is verified is HEAD, {commit[:9]}.", flush=True)
    damaged = inspect(root, scratch / "workspace")
    code, words = reproduce(root, commit, scratch, log)
    words = f"{words} (a fresh clone of {commit[:9]})"
    if damaged:
        return FAILED, f"DAMAGED: {damaged} of the files in this workspace, see above; apart from that {words}"
    return code, words


def inspect(root: Path, state: Path) -> int:
    """Print and count what is damaged in the workspace and its cache; `state` is an empty folder for DVC's notes."""
    present = [path for stage in read_lock(root).values() for path in outs(stage) if (root / path).exists()]
    objects, read = damaged_objects(root, state)
    damaged = damaged_artifacts(root, state) + objects
    print(f"Workspace: {len(present)} outputs and {read} objects in the cache, {len(damaged)} damaged", flush=True)
    for path in damaged:
        print(f"  damaged: {path}", flush=True)
    if damaged:
        print(f"  to mend: {remedy(damaged)}", flush=True)
    return len(damaged)


def reproduce(root: Path, commit: str, scratch: Path, log: Path) -> tuple[int, str]:
    """Run the pipeline of a commit in a clone of its own; exit code and verdict on what it makes."""
    clone = scratch / "clone"
    git(scratch, "clone", "--quiet", str(root), str(clone))
    git(clone, "checkout", "--quiet", "--detach", commit)
    if (root / "data/raw").exists():  # what params.yaml names by a path: pictures, weights, a teacher
        (clone / "data").mkdir(exist_ok=True)
        (clone / "data/raw").symlink_to((root / "data/raw").resolve())
    (clone / ".dvc/config.local").write_text("[cache]\n    dir = cache\n")  # whatever a committed config says
    record = read_json(clone / RECORD) if (clone / RECORD).exists() else {}
    here = origin(YAML(typ="safe").load(clone / "params.yaml")["threads"])
    committed, faults = take_outputs(clone)
    log.parent.mkdir(parents=True, exist_ok=True)
    if code := repro(clone, environment(root, scratch), log):
        last = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        print(*(f"  {line}" for line in last), sep="\n", flush=True)
        return FAILED, f"FAILED: `dvc repro` ended with exit code {code}; its output is in {log}"
    lock = read_lock(clone)
    ours = Run(lock, {path: read_json(clone / path) for path in committed.metrics if (clone / path).exists()})
    judged = judge(committed, ours, record, here, faults)
    print(*judged.lines, sep="\n", flush=True)
    if judged.code == FAILED:
        return FAILED, f"{judged.words}; the output of `dvc repro` is in {log}"
    log.unlink()
    return judged.code, judged.words


def take_outputs(clone: Path) -> tuple[Run, list[str]]:
    """Remove what git tracks of the outputs, and dvc.lock, so that all are made anew; and what in them was false."""
    lock, metrics, faults = read_lock(clone), {}, []
    for path, md5 in (out for stage in lock.values() for out in outs(stage).items()):
        if (clone / path).is_file():
            if checksum(clone / path) != md5:
                faults.append(f"{path}: the committed file is not the one that the committed dvc.lock names")
            if re.fullmatch(r"metrics/\w+\.json", path):
                metrics[path] = read_json(clone / path)
            (clone / path).unlink()
    (clone / "dvc.lock").unlink()
    return Run(lock, metrics), faults


def environment(root: Path, scratch: Path) -> dict[str, str]:
    """This interpreter, the raw data of `root`, and no cache or configuration of anybody."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_"))}
    return own | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "TMPDIR": str(scratch),
        "DVC_SITE_CACHE_DIR": str(scratch / "site"),
        "DVC_GLOBAL_CONFIG_DIR": str(scratch / "global"),
        "DVC_SYSTEM_CONFIG_DIR": str(scratch / "system"),
        "DVC_NO_ANALYTICS": "1",
        "PYTHONUNBUFFERED": "1",  # a stage is named when it starts
        "LIGHTWEIGHT_DATA": str(root / (os.environ.get("LIGHTWEIGHT_DATA") or "data/raw")),
    }


def repro(clone: Path, environment: dict[str, str], log: Path) -> int:
    """The exit code of `dvc repro`, whose output goes to `log`; a terminal sees which stage runs."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    command = [sys.executable, "-m", "dvc", "repro"]
    with subprocess.Popen(command, cwd=clone, env=environment, start_new_session=True, **pipes) as process:
        try:
            with log.open("w", buffering=1) as file:
                for line in process.stdout:
                    file.write(line)
                    if sys.stdout.isatty() and (stage := re.match(r"Running stage '(.+)':", line)):
                        print(f"  {stage[1]} ...", flush=True)
            return process.wait()
        except BaseException:  # nobody may go on writing into a folder that is being removed
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()  # until the last of them is gone
            raise


def read_lock(root: Path) -> Lock:
    """The stages of dvc.lock. Raises InputError if it is missing or damaged."""
    if not (root / "dvc.lock").exists():
        raise InputError("dvc.lock: no such file; `dvc repro` makes it, and it must be committed")
    try:
        return YAML(typ="safe").load(root / "dvc.lock")["stages"]
    except (YAMLError, TypeError, KeyError) as error:
        raise InputError(f"dvc.lock: not valid: {' '.join(str(error).split())}") from None


def git(folder: Path, *arguments: str) -> str:
    """What git prints. Raises InputError with its complaint."""
    own: dict[str, Any] = {name: value for name, value in os.environ.items() if name not in LOCAL}
    done = subprocess.run(["git", *arguments], cwd=folder, env=own, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"git {arguments[0]}: {' '.join(done.stderr.split())}")
    return done.stdout


if __name__ == "__main__":
    run_stage(main)
