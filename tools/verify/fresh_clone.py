"""Reproduce the committed results in a fresh clone of HEAD with an empty cache, or say what differs and why.

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

from lightweight.core.errors import InputError
from lightweight.core.files import read_json
from lightweight.core.yaml import parse_yaml, read_yaml
from lightweight.execution.process import run_stage
from lightweight.reporting.provenance import describe_origin, md5_of_file
from lightweight.reporting.results import Scores, read_scores
from tools.verify.integrity import find_damaged_artifacts, find_damaged_objects, repair_command
from tools.verify.verdict import FAILED, Lock, Run, judge, md5_of_outputs

LOG = Path("work/verify.log")
RECORD, SCORES = Path("metrics/provenance.json"), Path("plots/models.csv")
LAST_LINES = 15
LOCAL = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set in a hook of git, for the repository of the hook


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
    """Verify the workspace and HEAD, print what was found, and return exit code and verdict."""
    if not (root / ".git").exists():
        raise InputError("verify clones a commit, and this is a plain folder without .git")
    commit = run_git(root, "rev-parse", "HEAD").strip()
    if run_git(root, "status", "--porcelain").strip():
        print(f"The workspace has changes that are not committed; what is verified is HEAD, {commit[:9]}.", flush=True)
    damaged = inspect_workspace(root, scratch / "workspace")
    code, words = reproduce(root, commit, scratch, log)
    words = f"{words} (a fresh clone of {commit[:9]})"
    if damaged:
        return FAILED, f"DAMAGED: {damaged} of the files in this workspace, see above; apart from that {words}"
    return code, words


def inspect_workspace(root: Path, state: Path) -> int:
    """Print and count what is damaged in the workspace and its cache; `state` is an empty folder for DVC's notes."""
    present = [path for stage in read_lock(root).values() for path in md5_of_outputs(stage) if (root / path).exists()]
    objects, read = find_damaged_objects(root, state)
    damaged = find_damaged_artifacts(root, state) + objects
    print(f"Workspace: {len(present)} outputs and {read} objects in the cache, {len(damaged)} damaged", flush=True)
    for path in damaged:
        print(f"  damaged: {path}", flush=True)
    if damaged:
        print(f"  to mend: {repair_command(damaged)}", flush=True)
    return len(damaged)


def reproduce(root: Path, commit: str, scratch: Path, log: Path) -> tuple[int, str]:
    """Run the pipeline of a commit in a clone of its own, and return exit code and verdict on what it makes."""
    clone = scratch / "clone"
    run_git(scratch, "clone", "--quiet", str(root), str(clone))
    run_git(clone, "checkout", "--quiet", "--detach", commit)
    if (root / "data/raw").exists():  # which params.yaml may name: images, weights, a teacher
        (clone / "data").mkdir(exist_ok=True)
        (clone / "data/raw").symlink_to((root / "data/raw").resolve())
    (clone / ".dvc/config.local").write_text("[cache]\n    dir = cache\n")  # whatever a committed config says
    record = read_json(clone / RECORD) if (clone / RECORD).exists() else {}
    here = describe_origin(read_yaml(clone / "params.yaml")["threads"])
    committed, faults = remove_outputs(clone)
    log.parent.mkdir(parents=True, exist_ok=True)
    if code := run_repro(clone, make_environment(root, scratch), log):
        last = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        print(*(f"  {line}" for line in last), sep="\n", flush=True)
        return FAILED, f"FAILED: `dvc repro` ended with exit code {code}; its output is in {log}"
    lock = read_lock(clone)
    verdict = judge(committed, Run(lock, read_made_scores(clone)), record, here, faults)
    print(*verdict.lines, sep="\n", flush=True)
    if verdict.code == FAILED:
        return FAILED, f"{verdict.words}; the output of `dvc repro` is in {log}"
    log.unlink()
    return verdict.code, verdict.words


def remove_outputs(clone: Path) -> tuple[Run, list[str]]:
    """Remove dvc.lock and the outputs that git tracks, so that all are made anew.

    Returns what they held, and the faults of outputs that were not those of dvc.lock.
    """
    lock = read_lock(clone)
    scores = read_made_scores(clone)
    faults = []
    for path, md5 in (out for stage in lock.values() for out in md5_of_outputs(stage).items()):
        if (clone / path).is_file():
            if md5_of_file(clone / path) != md5:
                faults.append(f"{path}: the committed file is not the one that the committed dvc.lock names")
            (clone / path).unlink()
    (clone / "dvc.lock").unlink()
    return Run(lock, scores), faults


def read_made_scores(clone: Path) -> Scores:
    """Read the scores of the variants, if the table is there."""
    return read_scores(clone / SCORES) if (clone / SCORES).exists() else {}


def make_environment(root: Path, scratch: Path) -> dict[str, str]:
    """Make an environment with this interpreter and the raw data of `root`, but no cache or configuration of a user."""
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


def run_repro(clone: Path, environment: dict[str, str], log: Path) -> int:
    """Run `dvc repro` and return its exit code; its output goes to `log`, and a terminal sees which stage runs."""
    command = [sys.executable, "-m", "dvc", "repro"]
    with subprocess.Popen(
        command,
        cwd=clone,
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        try:
            with log.open("w", buffering=1) as file:
                for line in process.stdout or ():
                    file.write(line)
                    if sys.stdout.isatty() and (stage := re.match(r"Running stage '(.+)':", line)):
                        print(f"  {stage[1]} ...", flush=True)
            return process.wait()
        except BaseException:  # no process may go on writing into a folder that is being removed
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()  # until the last of them is gone
            raise


def read_lock(root: Path) -> Lock:
    """Read the stages of dvc.lock. Raises InputError when the file is missing or damaged."""
    if not (root / "dvc.lock").exists():
        raise InputError("dvc.lock: no such file; `dvc repro` makes it, and it must be committed")
    try:
        return parse_yaml((root / "dvc.lock").read_text(), "dvc.lock")["stages"]
    except (TypeError, KeyError) as error:
        raise InputError(f"dvc.lock: not valid: {' '.join(str(error).split())}") from None


def run_git(folder: Path, *arguments: str) -> str:
    """Run git and return its output. Raises InputError with git's message when the command fails."""
    own = {name: value for name, value in os.environ.items() if name not in LOCAL}
    done = subprocess.run(["git", *arguments], cwd=folder, env=own, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"git {arguments[0]}: {' '.join(done.stderr.split())}")
    return done.stdout


if __name__ == "__main__":
    run_stage(main)
