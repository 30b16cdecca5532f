"""Data sets larger than memory: peak memory and speed of every stage on a folder of photographs, at 224 pixels.

    python -m comparisons.large_data [IMAGES] [STORAGE] [FOLDER]

The folder is made of crops of the two photographs that come with scikit-learn, JPEG files of 500 x 500 pixels; most
files are further names of a few. Every stage runs as `dvc repro` runs it, in a copy of the project in FOLDER. Memory is
anonymous and shared memory of all processes of a stage together, sampled four times a second; what is mapped from files
is not in it, because the system takes it back when it is needed. Adds its rows to comparisons/results/large_data.csv.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from dvc.utils.hydra import apply_overrides
from PIL import Image
from sklearn.datasets import load_sample_images

from lightweight.core.errors import InputError
from lightweight.core.files import read_csv, write_csv
from lightweight.core.machine import cpu_name
from lightweight.execution.machines import usable_cores
from lightweight.execution.process import run_stage
from lightweight.reporting.table import markdown

TABLE = Path("comparisons/results/large_data.csv")
COLUMNS = ["images", "storage", "stage", "seconds", "peak_memory_gb", "cores", "cpu"]
CLASSES, DISTINCT, SIDE, SIZE, BATCH = 10, 2000, 500, 224, 64
STAGES = ("prepare", "train", "swa", "prune", "sensitivity", "bn_update", "quantize", "evaluate")
CHANGES = (
    "prepare.dataset=folder", "prepare.channels=3", f"prepare.image_size={SIZE}", "train.epochs=1",
    f"train.batch_size={BATCH}", "train.shards=2", "train.network=comparisons.small_network:small_network",
    "train.augment.shift=0.0", "train.augment.rotate=0", "train.augment.scale=0.0", "train.augment.flip=true",
    "train.augment.crop=16", "swa.start=null", "prune.epochs=1", "prune.amount=0.5", "sensitivity.probes=2",
    "quantize.method=static", "quantize.max_logit_error=9", "quantize.max_accuracy_drop=1",
)  # fmt: skip


def main() -> None:
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    storage = sys.argv[2] if len(sys.argv) > 2 else "pixels"
    folder = Path(sys.argv[3] if len(sys.argv) > 3 else "work/large_data").absolute()
    photographs = make_folder(folder / f"photographs-{images}", images)
    project = folder / f"{storage}-{images}"
    copy_project(project, [*CHANGES, f"prepare.path={photographs}", f"prepare.storage={storage}"])
    rows = []
    for stage in STAGES:
        rows.append({"stage": stage} | run_measured(stage, project))
        print(" ".join(f"{value}" for value in rows[-1].values()), flush=True)
    same = {"images": images, "storage": storage, "cores": usable_cores(), "cpu": cpu_name()}
    kept = [
        row
        for row in (read_csv(TABLE) if TABLE.exists() else [])
        if (row["images"], row["storage"]) != (str(images), storage)
    ]
    write_csv(TABLE, COLUMNS, [*kept, *(row | same for row in rows)])
    print(markdown(pd.read_csv(TABLE)))


def make_folder(folder: Path, images: int) -> Path:
    """Make the folder of photographs, unless it is there."""
    if folder.exists():
        return folder
    distinct = folder.with_name("distinct")
    distinct.mkdir(parents=True, exist_ok=True)
    generator, sources = np.random.default_rng(0), [Image.fromarray(image) for image in load_sample_images().images]
    for number in range(DISTINCT):
        source, side = sources[number % len(sources)], int(generator.integers(200, 420))
        left, top = (int(generator.integers(0, length - side)) for length in source.size)
        crop = source.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))
        crop.save(distinct / f"{number}.jpg", quality=90)
    temporary = folder.with_suffix(".new")
    for number in range(images):
        path = temporary / f"class{number % CLASSES}" / f"{number:07}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(distinct / f"{number % DISTINCT}.jpg", path)
    return temporary.rename(folder)


def copy_project(folder: Path, changes: list[str]) -> None:
    """Copy the code to a new folder, and the parameters with changes."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("stages", "lightweight", "comparisons"):
        shutil.copytree(name, folder / name)
    shutil.copy2("params.yaml", folder)
    apply_overrides(folder / "params.yaml", changes)


def run_measured(stage: str, project: Path) -> dict[str, float]:
    """Run a stage, and return its seconds and the peak memory of its processes in GB."""
    start, peak = time.perf_counter(), 0
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIGHTWEIGHT_")}
    with subprocess.Popen([sys.executable, "-m", f"stages.{stage}"], cwd=project, env=environment) as process:
        while process.poll() is None:
            peak = max(peak, tree_memory(process.pid))
            time.sleep(0.25)
    if process.returncode:
        raise InputError(f"stage {stage} failed in {project}")
    return {"seconds": round(time.perf_counter() - start, 1), "peak_memory_gb": round(peak / 1e9, 2)}


def tree_memory(process: int) -> int:
    """Add the anonymous and shared memory of a process and its descendants, in bytes; what is shared counts once."""
    total = 0
    try:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                total += 1024 * int(line.split()[1])
        for task in Path(f"/proc/{process}/task").iterdir():
            total += sum(map(tree_memory, map(int, (task / "children").read_text().split())))
    except OSError:  # it has ended
        pass
    return total


if __name__ == "__main__":
    run_stage(main)
