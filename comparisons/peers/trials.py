"""The peers and what is asked of them, as `peers.toml` lists them."""

import tokenize
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightweight.core.errors import InputError

FOLDER = Path("comparisons/peers")
LIST, SCRIPTS, REQUIREMENTS = FOLDER / "peers.toml", FOLDER / "scripts", FOLDER / "requirements"
OURS = "Lightweight"
TASKS = {
    "int8": "Weights and activations in 8 bits",
    "int4": "Weights in 4 bits",
    "pruned": "Channels removed until three fifths of the MACs are left, without training",
    "lossless": "The graph made simpler or stored in fewer bytes, without other numbers",
}
SILENCED = "import lightweight.core.telemetry"  # which a user of the peer need not write
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING}


@dataclass(frozen=True)
class Trial:
    """Describe one file that is made: by which peer and method, for which task, and by which script.

    `output` is the file that the script leaves, `environment` the one that it runs in. A `reference` is what the files
    of peers are compared with. `networks` are those that it is run on, `images` how many of the images it may use.
    """

    peer: str
    method: str
    task: str
    environment: str
    script: str
    output: str = "compressed.onnx"
    reference: bool = False
    networks: tuple[str, ...] = ("resnet20", "cnn", "resnet18")
    cpu_seconds: int = 1800

    @property
    def path(self) -> Path:
        """Return the path of the script."""
        return SCRIPTS / f"{self.script}.py"

    @property
    def key(self) -> tuple[str, str, str]:
        """Return what tells the trial from the others of a network."""
        return (self.task, self.peer, self.method)


def read_list(path: Path = LIST) -> dict[str, Any]:
    """Read the list of peers. Raises InputError that names what is wrong in it."""
    with path.open("rb") as file:
        return tomllib.load(file)


def list_trials(path: Path = LIST) -> list[Trial]:
    """List the trials of all peers in their order, ours first. Raises InputError that names the trial that is wrong."""
    trials = []
    for peer in read_list(path)["peer"]:
        for own in peer.get("trial", []):
            known = {"peer": peer["name"], "environment": peer["environment"]}
            try:
                trial = Trial(**known | own | ({"networks": tuple(own["networks"])} if "networks" in own else {}))
            except TypeError as error:
                raise InputError(f"{path}: {peer['name']}: {error}") from None
            if trial.task not in TASKS:
                raise InputError(f"{path}: {peer['name']}: task = {trial.task!r}: must be one of {', '.join(TASKS)}")
            trials.append(trial)
    return trials


def count_lines(script: Path) -> int:
    """Count the lines of a script that hold code: none of blanks, comments, docstrings or silenced telemetry."""
    lines: set[int] = set()
    text = script.read_text().splitlines()
    with script.open("rb") as file:
        at_start = True  # of a statement, where a string alone is a docstring
        for token in tokenize.tokenize(file.readline):
            if token.type in NO_CODE or token.type == tokenize.ENDMARKER:
                at_start = at_start or token.type == tokenize.NEWLINE
                continue
            if not (at_start and token.type == tokenize.STRING):
                lines |= set(range(token.start[0], token.end[0] + 1))
            at_start = False
    return sum(not text[number - 1].lstrip().startswith(SILENCED) for number in lines)
