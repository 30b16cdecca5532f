"""Every mutant meets its reader in a forked process with bounded memory and time, where it must execute nothing.

`python -m tests.faults.mutation_trial CORPUS NUMBER` makes so many mutants of each kind of file in `CORPUS/KIND/`. It
prints a line of JSON for every mutant that is neither accepted nor refused in one line, and the counts of each kind.
"""

import json
import os
import resource
import select
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightweight.core.errors import MAX_MESSAGE_CHARACTERS, InputError
from tests.contract import ROOT
from tests.faults.mutate import mutant
from tests.faults.mutation_readers import READERS

OUTCOMES = ("accepted", "refused", "crashed", "hung")
SECONDS = 60  # for one mutant, which takes some hundredths
SPACE = 3 * 2**30  # bytes of address space, so that what asks for more fails at once
PEAK = SPACE // 2  # bytes of memory that one mutant may add; WebP takes that for the largest image that is decoded
EXHAUSTED = ("bad_alloc", "allocate memory", "Unable to allocate", "MemoryError")

FORBIDDEN = {
    "os.exec", "os.fork", "os.forkpty", "os.kill", "os.posix_spawn", "os.spawn", "os.system", "pickle.find_class",
    "pty.spawn", "socket.bind", "socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen",
}  # fmt: skip
CODE = (sys.prefix, sys.base_prefix, str(ROOT / "lightweight"), str(ROOT / "stages"), "<")
TEMPORARY = tempfile.gettempdir()
executed: list[str] = []


def trial(kind: str, numbers: range, corpus: dict[str, list[bytes]], folder: Path) -> Iterator[tuple[int, str, str]]:
    """Number, outcome and detail of each mutant. A process that dies or hangs is replaced: its mutant is to blame."""
    while numbers:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _work(kind, numbers, corpus, folder, writing)
        os.close(writing)
        done, outcome = 0, ""
        for outcome, detail in _outcomes(reading):
            yield numbers[done], outcome, detail
            done += 1
        if outcome == "hung":
            os.kill(child, signal.SIGKILL)
        os.close(reading)
        _, status = os.waitpid(child, 0)
        if outcome != "hung" and done < len(numbers):
            yield numbers[done], "crashed", f"the process ended with the status {os.waitstatus_to_exitcode(status)}"
            done += 1
        numbers = numbers[done:]


def _outcomes(pipe: int) -> Iterator[tuple[str, str]]:
    """What the process tells of its mutants, until it ends or says nothing for too long."""
    rest = b""
    while True:
        *lines, rest = rest.split(b"\n")
        yield from (tuple(json.loads(line)) for line in lines)
        if not select.select([pipe], [], [], SECONDS)[0]:
            yield "hung", f"nothing after {SECONDS} seconds"
            return
        more = os.read(pipe, 65_536)
        if not more:
            return
        rest += more


def _work(kind: str, numbers: range, corpus: dict[str, list[bytes]], folder: Path, pipe: int) -> None:
    """The life of a forked process."""
    try:
        scratch = folder / f"{os.getpid()}"
        scratch.mkdir()
        os.chdir(scratch)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        space = _status("VmSize") + SPACE
        resource.setrlimit(resource.RLIMIT_AS, (space, space))
        sys.addaudithook(_audit)
        for number in numbers:
            _, content = mutant(kind, number, corpus)
            os.write(pipe, json.dumps(_meet(kind, content)).encode() + b"\n")
    finally:
        os._exit(0)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Note what a file must never lead to: commands, connections, unpickling, code, and writing outside its folder."""
    if event in FORBIDDEN:
        executed.append(f"{event} {arguments}")
    elif event == "exec" and not getattr(arguments[0], "co_filename", "").startswith(CODE):
        executed.append(f"exec {arguments}")
    elif event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        path = Path(os.fsdecode(arguments[0])).absolute() if isinstance(arguments[0], str | bytes) else Path.cwd()
        if not any(path.is_relative_to(folder) for folder in (Path.cwd(), TEMPORARY, os.devnull)):
            executed.append(f"open {path}")


def _meet(kind: str, content: bytes) -> tuple[str, str]:
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of memory
    before = _status("VmRSS")
    executed.clear()
    try:
        READERS[kind](content)
        outcome, detail = "accepted", ""
    except InputError as error:
        outcome, detail = "refused", str(error)
    except BaseException as error:
        return "crashed", f"{type(error).__name__}: {str(error)[:MAX_MESSAGE_CHARACTERS]}"
    added = _status("VmHWM") - before
    if executed or Path("mark").exists():
        return "crashed", f"executed: {executed[:3]}"
    if added > PEAK or any(words in detail for words in EXHAUSTED):
        return "crashed", f"took {added >> 20} MiB: {detail}"
    if outcome == "refused" and not (detail.isprintable() and 0 < len(detail) <= MAX_MESSAGE_CHARACTERS):
        return "crashed", f"not one line of text: {detail[:MAX_MESSAGE_CHARACTERS]!r}"
    return outcome, detail


def _status(key: str) -> int:
    """Bytes from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def main() -> None:
    folder, number = Path(sys.argv[1]), int(sys.argv[2])
    sys.dont_write_bytecode = True
    corpus = {kind: [path.read_bytes() for path in sorted((folder / kind).iterdir())] for kind in READERS}
    with tempfile.TemporaryDirectory() as scratch:
        for kind in sys.argv[3:] or READERS:
            counts = Counter(dict.fromkeys(OUTCOMES, 0))
            for mutant_number, outcome, detail in trial(kind, range(number), corpus, Path(scratch)):
                counts[outcome] += 1
                if outcome in ("crashed", "hung"):
                    mutations, _ = mutant(kind, mutant_number, corpus)
                    _say({"kind": kind, "number": mutant_number, "mutations": mutations, "detail": detail})
            _say({"kind": kind, "mutants": number, **counts})


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
