"""Sensitivity: measure the accuracy that the averaged model loses when layers are pruned alone, and all together.

Reads   params.yaml, data/prepared.safetensors, models/averaged.safetensors
Writes  plots/sensitivity.csv, plots/largest.csv
Resumes from work/sensitivity
"""

from functools import partial
from pathlib import Path

from lightweight.checkpointing.session import open_session
from lightweight.core.files import write_csv
from lightweight.core.params import GENERAL, load_params
from lightweight.data.augmentation import AugmentSection
from lightweight.data.dataset_file import load_dataset
from lightweight.execution.determinism import configure_torch, work_folder
from lightweight.execution.launch import run_parallel_stage
from lightweight.networks.model_file import load_model
from lightweight.pruning.probe import COLUMNS
from lightweight.sensitivity import GROUP_COLUMNS, SensitivityParams, measure_sensitivity

PARAMS, PREPARED = Path("params.yaml"), Path("data/prepared.safetensors")
AVERAGED = Path("models/averaged.safetensors")
SENSITIVITY, LARGEST = Path("plots/sensitivity.csv"), Path("plots/largest.csv")


def main() -> None:
    params = load_params(PARAMS, **GENERAL, train=AugmentSection, sensitivity=SensitivityParams)
    data = load_dataset(PREPARED).to(configure_torch(params))
    model, work = load_model(AVERAGED, data).model, work_folder() / "sensitivity"
    with open_session(work, params, data, [PREPARED, AVERAGED], SENSITIVITY, log=partial(print, flush=True)) as session:
        result = measure_sensitivity(model, params.sensitivity, session)
        write_csv(SENSITIVITY, GROUP_COLUMNS, result.groups)
        write_csv(LARGEST, COLUMNS, result.probes)
    print(f"sensitivity  {result.describe(params.sensitivity.max_drop)}  -> {SENSITIVITY}")


if __name__ == "__main__":
    run_parallel_stage(main, PARAMS, print, PREPARED)
