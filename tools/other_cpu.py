"""Other CPUs: run one stage here and emulated as other CPUs, and compare the bytes of everything that it writes.

    python -m tools.other_cpu train -S train.epochs=1 -S train.network=tiny

Needs `qemu-x86_64` (Debian's qemu-user) and the inputs of the stage, which `dvc repro` makes. The rows are added to
comparisons/results/cpus.csv. The emulator has AVX2 and no AVX-512; it is some hundred times slower than the CPU, and it
computes `grid_sample` wrongly, so that the affine augmentation has to be off.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from dvc.utils.hydra import apply_overrides

from lightweight.core.errors import InputError
from lightweight.core.files import read_csv, write_csv
from lightweight.core.machine import cpu_name, vector_extensions
from lightweight.core.yaml import read_yaml
from lightweight.execution.process import run_stage
from lightweight.reporting.provenance import md5_of_file

TABLE = Path("comparisons/results/cpus.csv")
COLUMNS = ("stage", "changes", "cpu", "outputs", "identical", "differing")
CPUS = ("Haswell", "Skylake-Client", "EPYC")
WITHOUT_AFFINE = ("train.augment.shift=0.0", "train.augment.rotate=0", "train.augment.scale=0.0")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("stage")
    parser.add_argument("-S", "--set-param", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    parser.add_argument("--cpu", action="append", dest="cpus", help=f"of the emulator, by default {', '.join(CPUS)}")
    given = parser.parse_args()
    stages = read_yaml(Path("dvc.yaml"))["stages"]
    if given.stage not in stages:
        raise InputError(f"no stage {given.stage!r}; known are {', '.join(stages)}")
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        raise InputError("qemu-x86_64 is not installed; it is in Debian's package qemu-user")
    here = f"{cpu_name()} ({vector_extensions()})"
    expected = run(stages, given.stage, given.changes, [])
    rows = [make_row(given.stage, given.changes, here, expected, expected)]
    for cpu in given.cpus or CPUS:
        found = run(stages, given.stage, given.changes, [emulator, "-cpu", cpu])
        rows.append(make_row(given.stage, given.changes, f"{cpu}, emulated on {here}", expected, found))
    for row in rows:
        verdict = f"{row['identical']:>2} of {row['outputs']:>2} identical"
        print(f"{row['stage']:<10} {verdict}  {row['cpu']}  {row['differing']}")
    before = read_csv(TABLE) if TABLE.exists() else []
    key = ("stage", "changes", "cpu")
    kept = [row for row in before if not any(all(row[name] == new[name] for name in key) for new in rows)]
    write_csv(TABLE, COLUMNS, [*kept, *rows])


def run(stages: dict[str, dict], stage: str, changes: list[str], emulator: list[str]) -> dict[str, str]:
    """Run a stage in a copy of the project, and return the MD5 of every file that it writes, by path."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in ("stages", "lightweight", "params.yaml", *map(str, stages[stage]["deps"])):
            source, target = Path(path), folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if not source.exists():
                raise InputError(f"{path}: no such file; `dvc repro` makes it")
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                shutil.copy2(source, target)
        apply_overrides(folder / "params.yaml", [*WITHOUT_AFFINE, *changes])
        own = {"LIGHTWEIGHT_PROCESSES": "1", "LIGHTWEIGHT_WORK": str(folder / "work")}
        command = [*emulator, sys.executable, "-m", f"stages.{stage}"]
        done = subprocess.run(command, cwd=folder, env=os.environ | own, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(f"{' '.join(command)}: {(done.stdout + done.stderr).strip().splitlines()[-1]}")
        outs = [out for kind in ("outs", "metrics", "plots") for out in stages[stage].get(kind, [])]
        paths = [folder / (out if isinstance(out, str) else next(iter(out))) for out in outs]
        files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*.*")))]
        return {file.relative_to(folder).as_posix(): md5_of_file(file) for file in files}


def make_row(
    stage: str, changes: list[str], cpu: str, expected: dict[str, str], found: dict[str, str]
) -> dict[str, str | int]:
    """Compare the files of a run with those of the run on this CPU, as a row of the table."""
    differing = [path for path in expected if found.get(path) != expected[path]]
    identical = len(expected) - len(differing)
    return dict(
        zip(COLUMNS, (stage, " ".join(changes), cpu, len(expected), identical, " ".join(differing)), strict=True)
    )


if __name__ == "__main__":
    run_stage(main)
