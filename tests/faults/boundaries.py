"""Kill a stage at its n-th touch of the disk, for n = 1, 2, 3 and so on until it comes through, and run it again.

    python -m tests.faults.boundaries STAGE     in a folder where everything that the stage reads is ready

A touch is the creation of a folder or a temporary file, the middle of its content, the moment before and after it
reaches the disk, a link, a removal, a lock, and the rename to the final name. Prints one JSON line per n: the touch,
and whether the second run ended in the outputs of an undisturbed one. After SQLite's crash tests.
"""

import contextlib
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

EVENTS = ("open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "fcntl.flock")
OUTPUTS = {
    "train": "original.safetensors",
    "swa": "averaged.safetensors",
    "prune": "pruned.safetensors",
    "sensitivity": "",
    "quantize": "optimized.onnx",
    "compact": "compact.lwz",
}


def arm(number: int, note: Callable[[str], None]) -> None:
    """Make this process kill itself at touch `number`; `note` hears the names of all touches up to there."""
    count, last = 0, ""

    def touch(what: str) -> None:
        nonlocal count
        count += 1
        note(what)
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple) -> None:
        nonlocal last
        if event not in EVENTS or (event == "open" and not str(arguments[0]).endswith(".tmp")):
            return
        if event == "open":
            last = str(arguments[0])
        touch(f"{event} {Path(str(arguments[0])).name}" if event != "fcntl.flock" else event)

    def fsync(descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        if count + 1 == number:
            os.ftruncate(descriptor, size // 2)
        touch(f"half of {Path(last).name}")
        touch(f"before fsync {Path(last).name}")
        real(descriptor)
        touch(f"after fsync {Path(last).name}")

    real, os.fsync = os.fsync, fsync
    sys.addaudithook(hook)


def attempt(main: Callable[[], None], number: int, log: Path) -> bool:
    """Run the stage in a child that dies at touch `number` (0: never); whether it came through."""
    child = os.fork()
    if child == 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
        if number:
            with log.open("w", buffering=1) as file:
                arm(number, lambda what: print(what, file=file))
                main()
        else:
            main()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


def clear(stage: str) -> None:
    """Remove the outputs, as DVC does before it runs a stage."""
    shutil.rmtree("plots", ignore_errors=True)
    if OUTPUTS[stage]:
        Path(f"models/{OUTPUTS[stage]}").unlink(missing_ok=True)
    if stage == "train":
        shutil.rmtree("models/snapshots", ignore_errors=True)


def outputs() -> dict[str, str]:
    files = (file for name in ("models", "plots") for file in Path(name).rglob("*") if file.is_file())
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def main() -> None:
    stage, log = sys.argv[1], Path("touches.txt")
    run = importlib.import_module(f"stages.{stage}").main
    clear(stage)
    with contextlib.redirect_stdout(None):
        run()  # in this process: what it imports on the way, no child has to
    expected = outputs()
    for number in range(1, 1000):
        clear(stage)
        shutil.rmtree("work")
        through = attempt(run, number, log)
        touched = log.read_text().splitlines()
        if through:
            assert len(touched) < number
            break
        clear(stage)
        attempt(run, 0, log)
        print(json.dumps([number, touched[-1], outputs() == expected]), flush=True)


if __name__ == "__main__":
    main()
