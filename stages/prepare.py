"""Prepare: pack images, labels, class names and pixel statistics into one file.

Reads   params.yaml, raw images
Writes  data/prepared.safetensors, plots/images.csv
"""

import os
from pathlib import Path

from lightweight.core.files import write_csv
from lightweight.core.params import Arithmetic, Seed, load_params
from lightweight.dataset import save_dataset
from lightweight.execution.determinism import project_root
from lightweight.execution.process import run_stage
from lightweight.preparation.image_folder import FINDING_COLUMNS
from lightweight.preparation.prepare import PrepareParams, read_dataset

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared.safetensors")
IMAGES = Path("plots/images.csv")
MAX_PATH_CHARACTERS = 200  # of paths in a line of the log; the file has all
ROOT = project_root()
RAW = ROOT / (os.environ.get("LIGHTWEIGHT_DATA") or "data/raw")


def main() -> None:
    params = load_params(PARAMS, seed=Seed, arithmetic=Arithmetic, prepare=PrepareParams)
    dataset, findings = read_dataset(params.prepare, RAW, ROOT, params.seed)
    save_dataset(PREPARED, dataset)
    write_csv(IMAGES, FINDING_COLUMNS, findings)
    for row in findings:
        noun = "image" if row["images"] == 1 else "images"
        paths = row["paths"] if len(row["paths"]) <= MAX_PATH_CHARACTERS else f"{row['paths'][:MAX_PATH_CHARACTERS]}..."
        print(f"prepare  {row['images']} {noun} {row['finding']}: {paths}")
    shape = "x".join(map(str, dataset.train.images.shape[1:]))
    counts = " + ".join(str(len(split)) for split in (dataset.train, dataset.val, dataset.test))
    print(f"prepare  {params.prepare.dataset}  {shape}  {dataset.num_classes} classes  {counts} images  -> {PREPARED}")


if __name__ == "__main__":
    run_stage(main)
