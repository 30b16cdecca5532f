"""Look at what `dvc repro` leaves behind: outputs that are not those of dvc.lock, because DVC's cache was damaged.

    python -m tools.verify.outputs

DVC puts an object of its cache in the place of an output and does not read it: a damaged one would go unnoticed where
no stage reads it either. Folders are read file by file. Data is left out, which stages check at every read. Exit code
1: damage, told in one line.

Reads   dvc.lock, the outputs, DVC's cache
"""

import json
import tempfile
from pathlib import Path

from lightweight.core.errors import InputError
from lightweight.core.yaml import read_yaml
from lightweight.execution.process import run_stage
from lightweight.reporting.provenance import md5_of_file
from tools.verify.integrity import find_cache, find_object, is_damaged, repair_command
from tools.verify.verdict import Lock, md5_of_outputs

DATA = Path("data")
FOLDER = ".dir"  # at the end of the MD5 of a folder, which is that of the list of its files


def main() -> None:
    lock = Path("dvc.lock")
    if lock.exists():
        stages = read_stages(lock)
        with tempfile.TemporaryDirectory() as state:
            cache = find_cache(Path.cwd(), Path(state))
        check_outputs(stages, cache)


def read_stages(path: Path) -> Lock:
    """Read the stages of dvc.lock. Raises InputError for a file that is not what DVC writes, such as half of one."""
    content = read_yaml(path)
    try:
        stages = {name: dict(stage) for name, stage in content["stages"].items()}
        texts = [text for stage in stages.values() for output in md5_of_outputs(stage).items() for text in output]
        whole = all(isinstance(text, str) for text in texts)
    except (AttributeError, KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        rule = f"does not say what the stages gave: `make mend` or `git checkout {path}` brings it back"
        raise InputError(f"{path}: {rule}")
    return stages


def check_outputs(stages: Lock, cache: Path) -> None:
    """Check the outputs of the stages of dvc.lock that are there, by the lists of folders in DVC's cache.

    Raises InputError that names altered outputs, and the objects of the cache that are damaged, too.
    """
    outputs = {Path(path): md5 for stage in stages.values() for path, md5 in md5_of_outputs(stage).items()}
    outputs = {path: md5 for path, md5 in outputs.items() if DATA not in path.parents and path.exists()}
    altered: dict[Path, str] = {}
    for path, md5 in outputs.items():
        altered |= _find_altered(path, md5, cache)
    if altered:
        objects = {find_object(cache, md5) for md5 in altered.values()}
        damaged = sorted(path for path in objects if path.is_file() and is_damaged(path))
        fault = "not what dvc.lock says, nor is DVC's cache" if damaged else "not what dvc.lock says"
        repair = repair_command([*altered, *damaged])
        raise InputError(f"{', '.join(map(str, altered))}: damaged: {fault}; to mend: {repair}")


def _find_altered(path: Path, md5: str, cache: Path) -> dict[Path, str]:
    """Map altered files of an output to the MD5 that they must have; a folder itself if its list is damaged.

    A folder whose list is not in the cache did not come from there, and passes.
    """
    if not md5.endswith(FOLDER):
        return {path: md5} if not path.is_file() or md5_of_file(path) != md5 else {}
    listing = find_object(cache, md5)
    if not listing.is_file():
        return {}
    if is_damaged(listing):
        return {path: md5}
    files = {path / file["relpath"]: file["md5"] for file in json.loads(listing.read_bytes())}
    return {file: own for file, own in files.items() if not file.is_file() or md5_of_file(file) != own}


if __name__ == "__main__":
    run_stage(main)
