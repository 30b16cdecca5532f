"""Train: train the original network, and validate it after each epoch.

Reads   params.yaml, data/prepared.safetensors, the files of train.weights and train.teacher
Writes  models/original.safetensors, models/snapshots/EPOCH.safetensors, plots/train.csv, work/cost/MD5-EPOCHS.json
Resumes from work/train
"""

from functools import partial
from pathlib import Path

from lightweight.checkpointing import resource_usage
from lightweight.checkpointing.session import open_session
from lightweight.core.files import write_csv
from lightweight.core.params import GENERAL, load_params
from lightweight.data.dataset_file import load_dataset
from lightweight.execution.determinism import configure_torch, project_root, work_folder
from lightweight.execution.launch import run_parallel_stage
from lightweight.networks.model_file import save_model
from lightweight.training.history import COLUMNS
from lightweight.training.loss import load_teacher
from lightweight.training.original import new_original, train_original
from lightweight.training.params import TrainParams

PARAMS, PREPARED = Path("params.yaml"), Path("data/prepared.safetensors")
ORIGINAL, SNAPSHOTS = Path("models/original.safetensors"), Path("models/snapshots")
HISTORY, ROOT = Path("plots/train.csv"), project_root()


def main() -> None:
    params = load_params(PARAMS, **GENERAL, train=TrainParams)
    log, device = partial(print, flush=True), configure_torch(params)
    data = load_dataset(PREPARED).to(device)
    original, teacher = new_original(params.train, data, ROOT, log), load_teacher(params.train, ROOT, data)
    files = [PREPARED, *params.train.files(ROOT)]
    with open_session(work_folder() / "train", params, data, files, ORIGINAL, log=log) as session:
        result = train_original(original, session, params.train, teacher, SNAPSHOTS)
        save_model(ORIGINAL, result.model_file)
        write_csv(HISTORY, COLUMNS, result.history.table())
        usage = resource_usage.record(work_folder() / "cost", ORIGINAL, result.history.seconds, device, params.threads)
    memory = usage["peak_memory_bytes"] / 1e9
    print(f"train  {usage['gpu'] or device}  {result.describe()}  {memory:.2f} GB  -> {ORIGINAL}")


if __name__ == "__main__":
    run_parallel_stage(main, PARAMS, print)
