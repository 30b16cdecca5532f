"""Train: the original network, watched on the validation split.

Reads   params.yaml, data/prepared.safetensors
Writes  models/original.safetensors, models/snapshots/EPOCH.safetensors, plots/train.csv
"""

from dataclasses import asdict, replace
from pathlib import Path

from lightweight import checkpoint
from lightweight.command import run
from lightweight.data import load_dataset
from lightweight.files import write_csv
from lightweight.params import Seed, Threads, load_params
from lightweight.runtime import start
from lightweight.training import (
    COLUMNS, TrainParams, choose, fit, make_optimizer, make_schedule, steps_per_epoch, stop_early,
)  # fmt: skip

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared.safetensors")
ORIGINAL = Path("models/original.safetensors")
SNAPSHOTS = Path("models/snapshots")
HISTORY = Path("plots/train.csv")


def main() -> None:
    params = load_params(PARAMS, seed=Seed, threads=Threads, train=TrainParams)
    device = start(params.threads, params.seed)
    data = load_dataset(PREPARED).to(device)
    shape = {"channels": data.channels, "image_size": data.image_size, "num_classes": data.num_classes}
    new = checkpoint.new(params.train.network, **shape)
    model = new.model.to(device)
    epochs = range(1, params.train.epochs + 1)
    optimizer = make_optimizer(model, params.train, params.train.lr)
    schedule = make_schedule(optimizer, params.train.schedule, len(epochs) * steps_per_epoch(data, params.train))
    history = []
    for row in stop_early(fit(model, data, params.train, optimizer, schedule, epochs, params.seed), params.train.patience):
        snapshot = replace(new, notes={"epoch": row.epoch, "lr": row.lr})
        checkpoint.save_checkpoint(checkpoint.snapshot(SNAPSHOTS, row.epoch), snapshot)
        history.append(row)
        print(row.line(epochs[-1]), flush=True)
    chosen = choose(history, params.train.patience)
    original = checkpoint.load_checkpoint(checkpoint.snapshot(SNAPSHOTS, chosen.epoch))
    checkpoint.save_checkpoint(ORIGINAL, replace(original, notes={}))
    write_csv(HISTORY, COLUMNS, map(asdict, history))
    print(f"train  {device}  epoch {chosen.epoch}  val accuracy {chosen.val_accuracy:.2%}  -> {ORIGINAL}")


if __name__ == "__main__":
    run(main)
