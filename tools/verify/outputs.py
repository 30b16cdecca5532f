"""Look at what `dvc repro` leaves behind: outputs that are not those of dvc.lock, because DVC's cache was damaged.

    python -m tools.verify.outputs

DVC puts an object of its cache in the place of an output and does not read it: a damaged one would go unnoticed where
no stage reads it either. Data is left out, which stages check at every read. Exit code 1: damage, told in one line.

Reads   dvc.lock, the outputs
"""

from pathlib import Path

from lightweight.core.errors import InputError
from lightweight.core.yaml import read_yaml
from lightweight.execution.process import run_stage
from lightweight.reporting.provenance import md5_of_file
from tools.verify.integrity import repair_command
from tools.verify.verdict import md5_of_outputs

DATA = Path("data")


def main() -> None:
    lock = Path("dvc.lock")
    if lock.exists():
        check_outputs(read_yaml(lock)["stages"])


def check_outputs(stages: dict[str, dict]) -> None:
    """Check the outputs of the stages of dvc.lock that are files and are there. Raises InputError for altered ones."""
    outputs = {Path(path): md5 for stage in stages.values() for path, md5 in md5_of_outputs(stage).items()}
    files = {path: md5 for path, md5 in outputs.items() if DATA not in path.parents and path.is_file()}
    altered = {path: md5 for path, md5 in files.items() if md5_of_file(path) != md5}
    if altered:
        objects = [Path(f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}") for md5 in altered.values()]
        names = ", ".join(map(str, altered))
        repair = repair_command([*altered, *objects])
        raise InputError(f"{names}: damaged: not what dvc.lock says, nor perhaps is DVC's cache; to mend: {repair}")


if __name__ == "__main__":
    run_stage(main)
