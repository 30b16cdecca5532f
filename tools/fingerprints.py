"""Fingerprints of what lies outside of DVC's view: the photographs, weights and network that params.yaml names.

    python -m tools.fingerprints

`make repro` runs it first. dvc.yaml lists the keys of fingerprints.yaml as parameters, so that other photographs make
`prepare` stale, and other weights `train`. A file that was read before and has not changed since is not read again.

Reads   params.yaml, the images of prepare.path, the files of train.weights, train.teacher and train.network
Writes  fingerprints.yaml, work/fingerprints.json
"""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel

from lightweight.core.files import read_json, user_path, write_json, write_text
from lightweight.core.params import load_params
from lightweight.core.yaml import read_yaml
from lightweight.execution.process import run_stage
from lightweight.preparation.image_folder import FolderSource

PARAMS, FINGERPRINTS = Path("params.yaml"), Path("fingerprints.yaml")
KNOWN = Path("work/fingerprints.json")
HEADER = """\
# `make repro` writes this file: fingerprints of what lies outside of DVC's view. dvc.yaml lists its keys as parameters,
# so that other photographs in prepare.path make prepare stale, and other weights, teachers or networks train.
"""


class ImageSection(BaseModel):
    """Read from section `prepare` where the images are; its own stage checks the other keys."""

    dataset: str
    path: str | None


class NetworkSection(BaseModel):
    """Read from section `train` what names files; its own stage checks the other keys."""

    network: str
    weights: str | None
    teacher: str | None


class Digests:
    """Compute digests of files, and remember them by the file's number, size and time of change."""

    def __init__(self, known: Path) -> None:
        self.path, self.known = known, read_json(known) if known.exists() else {}
        self.used: dict[str, str] = {}

    def of_file(self, path: Path) -> str:
        """Return the SHA-256 of the content; of no content where the file cannot be read."""
        try:
            status = path.stat()
            key = f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns}"
            if key not in self.known:
                with path.open("rb") as file:
                    self.known[key] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return hashlib.sha256().hexdigest()
        self.used[key] = self.known[key]
        return self.used[key]

    def of_files(self, folder: Path, names: Iterable[str]) -> str:
        """Return one digest of the names and contents of files in a folder, in the order of `names`."""
        whole, names = hashlib.sha256(), list(names)
        with ThreadPoolExecutor() as pool:
            for name, digest in zip(names, pool.map(lambda name: self.of_file(folder / name), names), strict=True):
                whole.update(os.fsencode(f"{name}\0{digest}\0"))
        return whole.hexdigest()

    def remember(self) -> None:
        """Write the digests that were asked for, for the next time."""
        write_json(self.path, self.used)


def main() -> None:
    found = take_fingerprints(PARAMS, Path())
    if read_yaml(FINGERPRINTS) != found:
        write_text(FINGERPRINTS, HEADER + "".join(f"{key}: {value}\n" for key, value in found.items()))
        print(f"fingerprints  new  -> {FINGERPRINTS}")


def take_fingerprints(params: Path, root: Path) -> dict[str, str]:
    """Return the fingerprint of what each key stands for, relative to `root`, or `none` where that is no file.

    Raises InputError for a folder that holds no images by class.
    """
    sections = load_params(params, prepare=ImageSection, train=NetworkSection)
    digests, train = Digests(root / KNOWN), sections.train
    module = train.network.partition(":")[0].replace(".", "/") if ":" in train.network else ""
    files = {"network": f"{module}.py", "weights": train.weights, "teacher": train.teacher}
    images = "none"
    if sections.prepare.dataset == "folder" and sections.prepare.path:
        source = FolderSource(user_path(root, sections.prepare.path), size=8, channels=1)
        images = f"sha256-{digests.of_files(source.path, source.files)}"
    found = {key: user_path(root, name) for key, name in files.items() if name}
    named = {key: f"sha256-{digests.of_file(path)}" for key, path in found.items() if path.is_file()}
    digests.remember()
    return {"images": images, **dict.fromkeys(files, "none"), **named}


if __name__ == "__main__":
    run_stage(main)
