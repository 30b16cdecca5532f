"""Machines that share artifacts through a DVC remote: each a clone with a cache and a DVC of its own.

The DVC that reaches remotes is that of .venv/remotes; its stages run in this environment.
"""

import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lightweight.core.files import read_json
from lightweight.core.yaml import read_yaml
from tests.faults.killing import outputs
from tests.faults.remote_servers import PROGRAMS, Remote
from tests.workspace import Workspace
from tools.verify.integrity import find_damaged_objects


@dataclass(frozen=True)
class Machines:
    """The first machine with what it made, its experiment `tried`, and the git repository that all clone.

    `objects` has MD5 by the name in a remote, `expected` and `tried` have SHA-256 by the path in the workspace.
    """

    first: Workspace
    origin: Path
    objects: dict[str, str]
    objects_with_tried: dict[str, str]
    expected: dict[str, str]
    tried: dict[str, str]

    def clone(self, folder: Path, remote: Remote, **settings: str) -> Workspace:
        """A machine more, with a clone, an empty cache and the remote."""
        machine = Workspace(folder / "project")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        Workspace(folder).run("git", "clone", "--quiet", str(self.origin), "project")
        identify(machine)
        use_remote(machine, remote, **settings)
        return machine


def identify(machine: Workspace) -> None:
    machine.run("git", "config", "user.name", "Test")
    machine.run("git", "config", "user.email", "test@example.com")


def use_remote(machine: Workspace, remote: Remote, **settings: str) -> None:
    """Write what `dvc remote add --local --default store URL` and `dvc remote modify --local store` do."""
    lines = [f"    {name} = {value}" for name, value in ({"url": remote.url} | remote.settings | settings).items()]
    text = "\n".join(["[core]", "    remote = store", "['remote \"store\"']", *lines])
    (machine.path / ".dvc/config.local").write_text(f"{text}\n")


def dvc(machine: Workspace, *arguments: str) -> tuple[int, str]:
    """The exit code of a command of DVC, and its output."""
    done = subprocess.run(
        [PROGRAMS / "dvc", *arguments],
        cwd=machine.path,
        env=machine.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=900,
    )
    return done.returncode, done.stdout


def state(found: dict[str, str], expected: dict[str, str]) -> str:
    if any(expected.get(name) != content for name, content in found.items()):
        return "no"
    return "yes" if found.keys() == expected.keys() else "whole" if found else "nothing"


def state_of(machine: Workspace, expected: dict[str, str]) -> str:
    """Compare the workspace with what it is to be; damage in the cache counts, too."""
    scratch = machine.path.parent / "state"
    scratch.mkdir(exist_ok=True)
    damaged, _ = find_damaged_objects(machine.path, scratch)
    return "no" if damaged else state(outputs(machine), expected)


def state_of_remote(remote: Remote, expected: dict[str, str]) -> str:
    """Compare the objects that others would get with what they are to be."""
    names = expected.keys() & set(remote.names())
    return state({name: hashlib.md5(remote.read(name)).hexdigest() for name in names}, expected)


def named_by_lock(machine: Workspace) -> dict[str, str]:
    """MD5 of the objects that dvc.lock names and git does not track, by their names in a remote."""
    outs = (out for stage in read_yaml(machine.path / "dvc.lock")["stages"].values() for out in stage.get("outs", ()))
    hashes = [out["md5"] for out in outs if out["path"].startswith(("data/", "models/"))]
    for folder in [md5 for md5 in hashes if md5.endswith(".dir")]:
        hashes += [file["md5"] for file in read_json(machine.path / ".dvc/cache" / object_name(folder))]
    return {object_name(md5): md5.removesuffix(".dir") for md5 in hashes}


def object_name(md5: str) -> str:
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def prepare(folder: Path, source: Path) -> Machines:
    """Clone what was run in `source`, and try another method of quantization there as an experiment."""
    origin, nowhere = folder / "origin.git", Remote(str(folder / "nowhere"), {}, folder)
    Workspace(source).run("git", "clone", "--quiet", "--bare", ".", str(origin))
    first = Machines(Workspace(folder), origin, {}, {}, {}, {}).clone(folder / "first", nowhere)
    shutil.copytree(source / ".dvc/cache", first.path / ".dvc/cache")
    first.run("dvc", "checkout")
    objects, expected = named_by_lock(first), outputs(first)
    first.run("dvc", "exp", "run", "--name", "tried", "-S", "quantize.method=none")
    objects_with_tried, tried = objects | named_by_lock(first), outputs(first)
    first.run("git", "checkout", ".")
    first.run("dvc", "checkout")
    return Machines(first, origin, objects, objects_with_tried, expected, tried)
