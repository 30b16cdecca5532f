"""Train: the original network, watched on the validation split.

Reads   params.yaml, data/prepared.safetensors
Writes  models/original.safetensors, models/snapshots/EPOCH.safetensors, plots/train.csv
"""

import shutil
from dataclasses import asdict, replace
from pathlib import Path

from lightweight import checkpoint, training
from lightweight.command import run
from lightweight.data import load_dataset
from lightweight.files import write_csv
from lightweight.params import Seed, Threads, load_params
from lightweight.runtime import start

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared.safetensors")
ORIGINAL = Path("models/original.safetensors")
SNAPSHOTS = Path("models/snapshots")
HISTORY = Path("plots/train.csv")


def main() -> None:
    params = load_params(PARAMS, seed=Seed, threads=Threads, train=training.TrainParams)
    device = start(params.threads, params.seed)
    data = load_dataset(PREPARED).to(device)
    new = checkpoint.new(params.train.network, data)
    epochs = range(1, params.train.epochs + 1)
    rate = {"lr": params.train.lr, "schedule": params.train.schedule}
    rows = training.train(new.model.to(device), data, params.train, epochs, params.seed, **rate)
    history = []
    shutil.rmtree(SNAPSHOTS, ignore_errors=True)  # of another run, if not DVC started this one
    for row in training.stop_early(rows, params.train.patience):
        weights = replace(new, notes={"epoch": row.epoch, "lr": row.lr})
        checkpoint.save_checkpoint(checkpoint.snapshot(SNAPSHOTS, row.epoch), weights)
        history.append(row)
        print(row.line(epochs[-1]), flush=True)
    chosen = training.choose(history, params.train.patience)
    original = checkpoint.load_checkpoint(checkpoint.snapshot(SNAPSHOTS, chosen.epoch))
    checkpoint.save_checkpoint(ORIGINAL, replace(original, notes={}))
    write_csv(HISTORY, training.COLUMNS, map(asdict, history))
    print(f"train  {device}  epoch {chosen.epoch}  val accuracy {chosen.val_accuracy:.2%}  -> {ORIGINAL}")


if __name__ == "__main__":
    run(main)
