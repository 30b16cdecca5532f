"""SWA: go on from a snapshot of training to the same total budget, and average the weights.

Reads   params.yaml, data/prepared.safetensors, models/original.safetensors, models/snapshots
Writes  models/averaged.safetensors, plots/swa.csv
Resumes from work/swa
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from lightweight.batchnorm import update_batchnorm
from lightweight.checkpointing.checkpointer import resumable
from lightweight.core.determinism import configure_torch, project_root
from lightweight.core.errors import bad_param
from lightweight.core.files import write_csv
from lightweight.core.params import Seed, Threads, load_params
from lightweight.core.process import run_stage
from lightweight.dataset import load_dataset
from lightweight.networks.model_file import load_model, save_model
from lightweight.swa import SwaParams, average, initial_lr, make_swa_schedule, remaining_epochs
from lightweight.training.history import COLUMNS, History
from lightweight.training.loop import TrainParams, train
from lightweight.training.loss import load_teacher
from lightweight.training.snapshots import snapshot

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared.safetensors")
ORIGINAL = Path("models/original.safetensors")
SNAPSHOTS = Path("models/snapshots")
AVERAGED = Path("models/averaged.safetensors")
HISTORY = Path("plots/swa.csv")
ROOT = project_root()
WORK = ROOT / "work"


def main() -> None:
    params = load_params(PARAMS, seed=Seed, threads=Threads, train=TrainParams, swa=SwaParams)
    data = load_dataset(PREPARED).to(configure_torch(params.threads, params.seed))
    epochs = remaining_epochs(params.swa, params.train.epochs, params.train.snapshots)
    path = snapshot(SNAPSHOTS, params.swa.start) if epochs else ORIGINAL
    if epochs and not path.exists():
        raise bad_param("swa.start", params.swa.start, "training stopped before that epoch, see train.patience")
    source = load_model(path, data)
    model = source.model
    how = {"lr": initial_lr(source.notes, params.swa.lr), "schedule": partial(make_swa_schedule, params.swa)}
    teacher = load_teacher(params.train, ROOT, data)
    files = [PREPARED, path, *params.train.files(ROOT)]
    with resumable(WORK, "swa", vars(params), files, AVERAGED, partial(print, flush=True)) as checkpointer:
        history = checkpointer.track("history", History())
        rows = train(model, data, params.train, epochs, params.seed, **how, teacher=teacher, checkpointer=checkpointer)
        for _ in history.record(average(model, rows, checkpointer)):
            print(history.line(params.train.epochs), flush=True)
        if history.rows:
            update_batchnorm(model, data, len(data.train), params.train.batch_size, params.seed)
        save_model(AVERAGED, replace(source, notes={}))
        write_csv(HISTORY, COLUMNS, history.table())
    print(f"swa  mean of {len(history.rows)} epochs  -> {AVERAGED}")


if __name__ == "__main__":
    run_stage(main)
