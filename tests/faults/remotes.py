"""Share artifacts through DVC remotes, with objects that are damaged or missing and servers that go away.

    python -m tests.faults.remotes FOLDER        which `make remotes` runs

Each line of the log is a command on a clone that knows nothing of the first machine but git and the remote.
"""

import csv
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from itertools import chain
from pathlib import Path

from lightweight.core.files import write_csv
from lightweight.core.yaml import read_yaml
from tests.contract import ROOT
from tests.faults.killing import outputs
from tests.faults.remote_machines import (
    Machines,
    dvc,
    object_name,
    prepare,
    state,
    state_of,
    state_of_remote,
    use_remote,
)
from tests.faults.remote_servers import REMOTES, SSHD, Remote, ssh_openssh
from tests.finished import run_default
from tests.workspace import Workspace
from tools.verify.integrity import find_damaged_artifacts

LOG = ROOT / "tests/faults/remotes.csv"
VICTIM, MAKER = "models/recalibrated.safetensors", "bn_update"  # made again in seconds
CHANGE = ("  method: dynamic ", "  method: none ")  # of quantize
LAST = ("ERROR: ", "Everything is up to date", "Pushed experiment", "Pulled experiment")

UNCHECKED = "pull of a damaged object"
CHECK = "what make verify finds after it"
CUT = ("push, cut off in the middle", "pull, cut off in the middle")
FAILING = (*CUT, "pull of a damaged object, verify", "pull of a missing object")
RUNS = {
    "repro after pull": "runs nothing",
    "repro --pull in a fresh clone": "runs nothing",
    "repro --pull after a damaged object, verify": f"runs {MAKER}",
    "repro --pull after a missing object": f"runs {MAKER}",
}  # the stages that DVC may run, where it has to run one at all
COUNTS = ("pushed", "fetched", "added", "uploaded")

Seen = tuple[str, str, int, str]  # trial, words, exit code, identical


@dataclass(frozen=True)
class Row:
    """What a user saw: the exit code of the command, what it said in the end, and whether all bytes are right.

    `identical` is `yes` or `no`, or `whole` where what is there has the right bytes and something is missing.
    """

    remote: str
    trial: str
    seen: str
    code: int
    identical: str


def ran(output: str) -> str:
    stages = [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage ")]
    return f"runs {', '.join(stages) or 'nothing'}"


def last_word(output: str) -> str:
    """The line in which DVC says what came of it, with what the error names."""
    lines = output.splitlines()
    found = [place for place, line in enumerate(lines) if line.startswith(LAST) or line.endswith(COUNTS)]
    assert found, output
    line = lines[found[-1]]
    words = " ".join(lines[found[-1] : found[-1] + 2]) if line.endswith("following targets:") else line
    return re.sub(r"\d+ files?", "N files", words)  # how many passed before a cut differs


@dataclass(frozen=True)
class Trial:
    """One kind of remote, tried by the machines in folders of its own."""

    name: str
    machines: Machines
    remote: Remote
    folder: Path

    def rows(self) -> Iterator[Row]:
        shutil.rmtree(self.machines.first.path.parent / "site", ignore_errors=True)  # what DVC knows of other remotes
        use_remote(self.machines.first, self.remote)
        for trial, seen, code, identical in chain(self.push(), self.pull(), self.share(), self.damage(), self.lose()):
            yield Row(self.name, trial, seen, code, identical)

    def clone(self, name: str, **settings: str) -> Workspace:
        return self.machines.clone(self.folder / name, self.remote, **settings)

    def cut_after_half(self, machine: Workspace, command: str) -> tuple[int, str]:
        """Run a command whose remote goes away when half of all bytes have passed, and comes back afterwards."""
        cache = self.machines.first.path / ".dvc/cache"
        self.remote.cable.left = sum((cache / name).stat().st_size for name in self.machines.objects) // 2
        code, output = dvc(machine, command, "--jobs", "2")  # of 12 large files some are through before
        assert self.remote.cable.left <= 0, "it was through before the cut"
        self.remote.cable.mend()
        return code, last_word(output)

    def push(self) -> Iterator[Seen]:
        """Upload everything, at first in vain."""
        first, objects = self.machines.first, self.machines.objects
        if self.remote.cable:
            code, said = self.cut_after_half(first, "push")
            yield CUT[0], said, code, state_of_remote(self.remote, objects)
        code, output = dvc(first, "push")
        yield "push", last_word(output), code, state_of_remote(self.remote, objects)

    def pull(self) -> Iterator[Seen]:
        """Get everything into a second clone, at first in vain, and into a third by `dvc repro`."""
        second, expected = self.clone("second"), self.machines.expected
        if self.remote.cable:
            code, said = self.cut_after_half(second, "pull")
            yield CUT[1], said, code, state_of(second, expected)
        code, output = dvc(second, "pull")
        yield "pull", last_word(output), code, state_of(second, expected)
        code, output = dvc(second, "repro")
        yield "repro after pull", ran(output), code, state_of(second, expected)
        third = self.clone("third")
        code, output = dvc(third, "repro", "--pull")
        yield "repro --pull in a fresh clone", ran(output), code, state_of(third, expected)

    def share(self) -> Iterator[Seen]:
        """Share an experiment; by the run cache, somebody who sets the same parameters gets next to nothing of it.

        DVC keeps no stage in it with an output of `cache: false` that it does not know as a metric or a plot.
        """
        second, third = Workspace(self.folder / "second/project"), Workspace(self.folder / "third/project")
        first, objects = self.machines.first, self.machines.objects_with_tried
        code, output = dvc(first, "exp", "push", "origin", "tried")
        yield "exp push", last_word(output), code, state_of_remote(self.remote, objects)
        code, output = dvc(second, "exp", "pull", "origin", "tried")
        applied, _ = dvc(second, "exp", "apply", "tried")
        yield "exp pull, exp apply", last_word(output), code or applied, state_of(second, self.machines.tried)
        code, output = dvc(first, "push", "--run-cache")
        yield "push --run-cache", last_word(output), code, state_of_remote(self.remote, objects)
        code, output = dvc(third, "pull", "--run-cache")
        yield "pull --run-cache", last_word(output), code, state_of(third, self.machines.expected)
        third.set_params(CHANGE)
        code, output = dvc(third, "repro", "--pull", "evaluate")
        models = {name: md5 for name, md5 in self.machines.tried.items() if name.startswith("models/")}
        found = {name: md5 for name, md5 in outputs(third).items() if name in models}
        yield "repro --pull of what the experiment set", ran(output), code, state(found, models)

    def damage(self) -> Iterator[Seen]:
        """Flip one bit of an object: what comes of it without and with `verify`."""
        victim, expected = self.victim(), self.machines.expected
        content = bytearray(self.remote.read(victim))
        content[len(content) // 2] ^= 1
        self.remote.write(victim, bytes(content))
        careless = self.clone("careless")
        code, output = dvc(careless, "pull")
        yield UNCHECKED, last_word(output), code, state_of(careless, expected)
        found = find_damaged_artifacts(careless.path, self.folder / "careless/state")
        yield CHECK, f"damaged: {', '.join(map(str, found))}", int(bool(found)), state_of(careless, expected)
        careful = self.clone("careful", verify="true")
        code, output = dvc(careful, "pull")
        yield "pull of a damaged object, verify", last_word(output), code, state_of(careful, expected)
        code, output = dvc(careful, "repro", "--pull")
        yield "repro --pull after a damaged object, verify", ran(output), code, state_of(careful, expected)

    def lose(self) -> Iterator[Seen]:
        """Remove an object, which is made again and pushed."""
        victim, expected = self.victim(), self.machines.expected
        self.remote.remove(victim)
        poor = self.clone("poor")
        code, output = dvc(poor, "pull")
        yield "pull of a missing object", last_word(output), code, state_of(poor, expected)
        code, output = dvc(poor, "repro", "--pull")
        yield "repro --pull after a missing object", ran(output), code, state_of(poor, expected)
        code, output = dvc(poor, "push")
        yield "push after it", last_word(output), code, state_of_remote(self.remote, self.machines.objects)

    def victim(self) -> str:
        lock = read_yaml(self.machines.first.path / "dvc.lock")["stages"][MAKER]["outs"]
        (md5,) = [out["md5"] for out in lock if out["path"] == VICTIM]
        return object_name(md5)


def try_remote(name: str, machines: Machines, folder: Path) -> list[Row]:
    (folder / "server").mkdir(parents=True)
    with REMOTES[name](folder / "server") as remote:
        rows = list(Trial(name, machines, remote, folder).rows())
        if remote.cable:
            remote.cable.cut()
    shutil.rmtree(folder)  # gigabytes
    return rows


def available() -> list[str]:
    """The kinds of remotes whose servers are there."""
    return [name for name in REMOTES if SSHD or REMOTES[name] is not ssh_openssh]


def broken_promises(rows: list[Row]) -> list[Row]:
    """The rows in which a command that ends well leaves wrong bytes or does work twice, or one that must fail does not.

    The one exception is a damaged object that DVC is not told to check.
    """
    return [row for row in rows if row.trial != UNCHECKED and not _is_kept(row)]


def _is_kept(row: Row) -> bool:
    if row.trial == CHECK:
        return row.code == 1
    if row.trial in FAILING:
        return row.code != 0 and row.identical in ("whole", "nothing")
    return (row.code, row.identical) == (0, "yes") and RUNS.get(row.trial, row.seen) == row.seen


def read_rows(log: Path) -> list[Row]:
    with log.open(newline="") as file:
        return [Row(**line | {"code": int(line["code"])}) for line in csv.DictReader(file)]


def main(folder: Path, log: Path) -> int:
    """Try all remotes whose servers are here, and return the exit code; the rows of others stay in the log."""
    rows = read_rows(log) if log.exists() else []
    machines = prepare(folder, run_default(folder / "default").workspace.path)
    for name in available():
        rows = [row for row in rows if row.remote != name] + try_remote(name, machines, folder / name)
        rows.sort(key=lambda row: list(REMOTES).index(row.remote))
        write_csv(log, [field.name for field in fields(Row)], map(asdict, rows))
        print(f"{name}: tried", flush=True)
    broken = broken_promises(rows)
    print(*(f"broken: {row}" for row in broken), f"{len(rows)} trials, {len(broken)} of them not as promised", sep="\n")
    return bool(broken)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # servers are stopped then, too
    sys.exit(main(Path(sys.argv[1]), LOG))
