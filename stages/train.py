"""Train: the original network, watched on the validation split.

Reads   params.yaml, data/prepared.safetensors, the files of train.weights and train.teacher
Writes  models/original.safetensors, models/snapshots/EPOCH.safetensors, plots/train.csv, work/cost/MD5-EPOCHS.json
Resumes from work/train
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from lightweight.checkpointing.checkpointer import resumable
from lightweight.core.determinism import configure_torch, project_root
from lightweight.core.files import write_csv
from lightweight.core.params import Seed, Threads, load_params
from lightweight.core.process import run_stage
from lightweight.dataset import load_dataset
from lightweight.networks import model_file as checkpoint
from lightweight.training import loop as training
from lightweight.training.history import COLUMNS, History
from lightweight.training.loss import load_teacher
from lightweight.training.optimizer import make_schedule
from lightweight.training.pretrained import load_weights
from lightweight.training.resource_usage import record
from lightweight.training.snapshots import keep_snapshot, snapshot

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared.safetensors")
ORIGINAL = Path("models/original.safetensors")
SNAPSHOTS = Path("models/snapshots")
HISTORY = Path("plots/train.csv")
ROOT = project_root()
WORK = ROOT / "work"


def main() -> None:
    params = load_params(PARAMS, seed=Seed, threads=Threads, train=training.TrainParams)
    device = configure_torch(params.threads, params.seed)
    data = load_dataset(PREPARED).to(device)
    original = checkpoint.new_model(params.train.network, params.train.small_stem, data)
    if params.train.weights:
        given = (params.train.network, params.train.weights, ROOT)
        fresh = load_weights(original.model, *given, new_classifier=params.train.epochs > 0)
        print(f"train  begins with {params.train.weights}, without {', '.join(fresh) or 'exception'}", flush=True)
    teacher = load_teacher(params.train, ROOT, data)
    epochs = range(1, params.train.epochs + 1)
    schedule = partial(make_schedule, params.train.schedule, params.train, len(epochs))
    how = {"lr": params.train.lr, "schedule": schedule, "teacher": teacher}
    files = [PREPARED, *params.train.files(ROOT)]
    with resumable(WORK, "train", vars(params), files, ORIGINAL, partial(print, flush=True)) as checkpointer:
        history = checkpointer.track("history", History())
        rows = training.train(
            original.model.to(device), data, params.train, epochs, params.seed, **how, checkpointer=checkpointer
        )
        for _ in history.record(rows, params.train.patience):
            keep_snapshot(checkpointer, original, history, params.train.snapshots, params.train.patience)
            print(history.line(epochs[-1]), flush=True)
        checkpointer.export_files(SNAPSHOTS)
        done = "weights as they were given"
        if history.rows:
            kept = history.kept(params.train.patience)
            original = checkpoint.load_model(snapshot(SNAPSHOTS, kept.epoch))
            done = f"epoch {kept.epoch}  val accuracy {kept.val_accuracy:.2%}"
        checkpoint.save_model(ORIGINAL, replace(original, notes={}))
        write_csv(HISTORY, COLUMNS, history.table())
        cost = record(WORK / "cost", ORIGINAL, history.seconds, device, params.threads)
    print(f"train  {cost['gpu'] or device}  {done}  {cost['peak_memory_bytes'] / 1e9:.2f} GB  -> {ORIGINAL}")


if __name__ == "__main__":
    run_stage(main)
