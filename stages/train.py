"""Train: the original network, watched on the validation split.

Reads   params.yaml, data/prepared.safetensors, the files of train.weights and train.teacher
Writes  models/original.safetensors, models/snapshots/EPOCH.safetensors, plots/train.csv, work/cost/MD5-EPOCHS.json
"""

import shutil
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from lightweight import checkpoint, training
from lightweight.command import run
from lightweight.cost import Stopwatch, note
from lightweight.data import load_dataset
from lightweight.distillation import load_teacher
from lightweight.files import write_csv
from lightweight.history import COLUMNS, choose, stop_early
from lightweight.optimization import make_schedule
from lightweight.params import Seed, Threads, load_params
from lightweight.pretrained import load_weights
from lightweight.runtime import start, workspace

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared.safetensors")
ORIGINAL = Path("models/original.safetensors")
SNAPSHOTS = Path("models/snapshots")
HISTORY = Path("plots/train.csv")
COSTS = workspace() / "work/cost"


def main() -> None:
    params = load_params(PARAMS, seed=Seed, threads=Threads, train=training.TrainParams)
    device = start(params.threads, params.seed)
    data = load_dataset(PREPARED).to(device)
    original = checkpoint.new(params.train.network, params.train.small_stem, data)
    if params.train.weights:
        given = (params.train.network, params.train.weights, workspace())
        fresh = load_weights(original.model, *given, new_classifier=params.train.epochs > 0)
        print(f"train  begins with {params.train.weights}, without {', '.join(fresh) or 'exception'}", flush=True)
    teacher = load_teacher(params.train, workspace(), data)
    epochs = range(1, params.train.epochs + 1)
    schedule = partial(make_schedule, params.train.schedule, params.train, len(epochs))
    how = {"lr": params.train.lr, "schedule": schedule, "teacher": teacher}
    rows = training.train(original.model.to(device), data, params.train, epochs, params.seed, **how)
    shutil.rmtree(SNAPSHOTS, ignore_errors=True)  # of another run, if not DVC started this one
    watch, history, done = Stopwatch(), [], "weights as they were given"
    for row in stop_early(watch.laps(rows), params.train.patience):
        weights = replace(original, notes={"epoch": row.epoch, "lr": row.lr})
        checkpoint.save_checkpoint(checkpoint.snapshot(SNAPSHOTS, row.epoch), weights)
        history.append(row)
        print(row.line(epochs[-1]), flush=True)
    if history:
        kept = choose(history, params.train.patience)
        done = f"epoch {kept.epoch}  val accuracy {kept.val_accuracy:.2%}"
        original = checkpoint.load_checkpoint(checkpoint.snapshot(SNAPSHOTS, kept.epoch))
    SNAPSHOTS.mkdir(parents=True, exist_ok=True)
    checkpoint.save_checkpoint(ORIGINAL, replace(original, notes={}))
    write_csv(HISTORY, COLUMNS, map(asdict, history))
    cost = note(COSTS, ORIGINAL, watch.seconds, device, params.threads)
    print(f"train  {cost['gpu'] or device}  {done}  {cost['peak_memory_bytes'] / 1e9:.2f} GB  -> {ORIGINAL}")


if __name__ == "__main__":
    run(main)
