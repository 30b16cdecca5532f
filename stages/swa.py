"""SWA: continue training from a snapshot up to the same number of epochs, and average the weights.

Reads   params.yaml, data/prepared.safetensors, models/original.safetensors, models/snapshots
Writes  models/averaged.safetensors, plots/swa.csv
Resumes from work/swa
"""

from functools import partial
from pathlib import Path

from lightweight.checkpointing.session import open_session
from lightweight.core.files import write_csv
from lightweight.core.params import GENERAL, load_params
from lightweight.data.dataset_file import load_dataset
from lightweight.execution.determinism import configure_torch, project_root, work_folder
from lightweight.execution.launch import run_parallel_stage
from lightweight.networks.model_file import load_model, save_model
from lightweight.swa import SwaParams, average_weights, starting_file
from lightweight.training.history import COLUMNS
from lightweight.training.loss import load_teacher
from lightweight.training.params import TrainParams

PARAMS, PREPARED = Path("params.yaml"), Path("data/prepared.safetensors")
ORIGINAL, SNAPSHOTS = Path("models/original.safetensors"), Path("models/snapshots")
AVERAGED, HISTORY = Path("models/averaged.safetensors"), Path("plots/swa.csv")
ROOT = project_root()


def main() -> None:
    params = load_params(PARAMS, **GENERAL, train=TrainParams, swa=SwaParams)
    data = load_dataset(PREPARED).to(configure_torch(params))
    start = starting_file(params.swa, params.train, SNAPSHOTS, ORIGINAL)
    source, teacher = load_model(start, data), load_teacher(params.train, ROOT, data)
    files, log = [PREPARED, start, *params.train.files(ROOT)], partial(print, flush=True)
    with open_session(work_folder() / "swa", params, data, files, AVERAGED, log=log) as session:
        result = average_weights(source, session, params.swa, params.train, teacher)
        save_model(AVERAGED, result.model_file)
        write_csv(HISTORY, COLUMNS, result.history.table())
    print(f"swa  {result.describe(params.train)}  -> {AVERAGED}")


if __name__ == "__main__":
    run_parallel_stage(main, PARAMS, print)
