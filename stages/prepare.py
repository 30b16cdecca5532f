"""Prepare: one packed file of images, labels, class names and pixel statistics.

Reads   params.yaml, raw images
Writes  data/prepared.safetensors
"""

import os
from pathlib import Path

from lightweight.command import run
from lightweight.data import save_dataset
from lightweight.params import Seed, load_params
from lightweight.sources import PrepareParams, read_dataset

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared.safetensors")
ROOT = Path(os.environ.get("DVC_ROOT", ""))  # the workspace: copies made for experiments hold no raw images
RAW = ROOT / (os.environ.get("LIGHTWEIGHT_DATA") or "data/raw")


def main() -> None:
    params = load_params(PARAMS, seed=Seed, prepare=PrepareParams)
    dataset = read_dataset(params.prepare, RAW, ROOT, params.seed)
    save_dataset(PREPARED, dataset)
    shape = "x".join(map(str, dataset.train.images.shape[1:]))
    counts = " + ".join(str(len(split)) for split in (dataset.train, dataset.val, dataset.test))
    print(f"prepare  {params.prepare.dataset}  {shape}  {dataset.num_classes} classes  {counts} images  -> {PREPARED}")


if __name__ == "__main__":
    run(main)
