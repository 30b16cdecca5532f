"""The repository of the user: the commit that a sweep is of, and the experiments that it has and gets."""

import fcntl
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightweight.core.errors import InputError, one_line
from lightweight.core.files import write_bytes, write_text
from tools.sweep.experiment import TOKEN, Source

FOLDER = Path("work/sweep")  # of what a sweep writes beside its results
BUNDLE = FOLDER / "commit.bundle"


def find_commit() -> str:
    """Find the commit that a sweep is of. Raises InputError for changes that its clones would not have."""
    if not Path(".git").exists():
        raise InputError("a sweep is of DVC experiments, which need a git clone; this is a plain folder")
    if changed := run_git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!sweeps").splitlines():
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise InputError(f"{changed[0][3:]}{more}: not committed, and a sweep is of a commit: git commit or git stash")
    return run_git("rev-parse", "HEAD").strip()


def pack_commit(commit: str) -> Source:
    """Write the commit and its history to `BUNDLE`, and describe what experiments begin with."""
    token = uuid.uuid4().hex
    write_text(TOKEN, token)
    run_git("bundle", "create", "--quiet", str(BUNDLE), "HEAD")
    author = (run_git("config", "user.name").strip(), run_git("config", "user.email").strip())
    cache = Path(run_program("dvc", "cache", "dir").strip())
    return Source(commit, BUNDLE.name, author, Path.cwd(), cache, token)


@contextmanager
def lock_sweep() -> Iterator[None]:
    """Lock the folder of sweeps. Raises InputError while another sweep has it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{FOLDER}: another sweep of this repository runs; one at a time") from None
        yield


def has_experiment(commit: str, name: str) -> bool:
    """Tell whether the commit has an experiment of this name."""
    return bool(run_git("for-each-ref", _reference(commit, name)))


def read_experiment(commit: str, name: str, path: str) -> str:
    """Read a file as the experiment committed it."""
    return run_git("show", f"{_reference(commit, name)}:{path}")


def add_experiment(commit: str, name: str, bundle: bytes) -> None:
    """Add the experiment that a git bundle holds."""
    file, reference = FOLDER / f"{name}.bundle", _reference(commit, name)
    write_bytes(file, bundle)
    run_git("fetch", "--quiet", "--no-write-fetch-head", str(file), f"{reference}:{reference}")
    file.unlink()


def _reference(commit: str, name: str) -> str:
    """Name the git reference of an experiment as DVC does."""
    return f"refs/exps/{commit[:2]}/{commit[2:]}/{name}"


def run_git(*arguments: str) -> str:
    """Run git and return its output. Raises InputError with git's message when the command fails."""
    return run_program("git", *arguments)


def run_program(*command: str, given: str | None = None) -> str:
    """Run a program with the text `given` as input, and return its output. Raises InputError with its last line."""
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise InputError(f"{command[0]}: no such program; `make sweep` finds those of .venv") from None
    if done.returncode:
        reason = one_line((done.stderr.strip().splitlines() or ["no reason is given"])[-1])
        raise InputError(reason.removeprefix("error: ") if given else f"{' '.join(command)}: {reason}")
    return done.stdout
