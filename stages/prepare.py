"""Prepare: pack images, labels, class names and pixel statistics into one file, with shards if they are many.

Reads   params.yaml, raw images
Writes  data/prepared.safetensors, data/prepared/index.json, data/prepared/NUMBER.safetensors, plots/images.csv
Resumes from work/prepare
"""

import os
from functools import partial
from pathlib import Path

from lightweight.checkpointing.session import resumable
from lightweight.core.files import write_csv
from lightweight.core.params import Arithmetic, Seed, load_params
from lightweight.execution.determinism import project_root, work_folder
from lightweight.execution.process import run_stage
from lightweight.preparation.assembly import write_dataset
from lightweight.preparation.findings import FINDING_COLUMNS, describe_findings
from lightweight.preparation.params import PrepareParams
from lightweight.preparation.prepare import open_source, read_dataset
from lightweight.preparation.requirements import check_requirements

PARAMS = Path("params.yaml")
PREPARED, IMAGES = Path("data/prepared.safetensors"), Path("plots/images.csv")
ROOT = project_root()
RAW = ROOT / (os.environ.get("LIGHTWEIGHT_DATA") or "data/raw")


def main() -> None:
    params = load_params(PARAMS, seed=Seed, arithmetic=Arithmetic, prepare=PrepareParams)
    source, log = open_source(params.prepare, RAW, ROOT), partial(print, flush=True)
    inputs = vars(params) | {"source": source.identity()}
    with resumable(work_folder(), "prepare", inputs, [], PREPARED, log=log) as checkpointer:
        log(check_requirements(source, params.prepare.storage, checkpointer.run_folder))
        dataset = read_dataset(params.prepare, source, params.seed, checkpointer.run_folder, log)
        write_dataset(PREPARED, dataset)
        write_csv(IMAGES, FINDING_COLUMNS, source.finding_rows())
    closing = f"prepare  {params.prepare.dataset}  {dataset.describe()}  -> {PREPARED}"
    print(*describe_findings(source.finding_rows()), closing, sep="\n")


if __name__ == "__main__":
    run_stage(main)
