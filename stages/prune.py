"""Prune: zero the smallest weights of the averaged model and let the others recover.

Reads   params.yaml, data/prepared.safetensors, models/averaged.safetensors
Writes  models/pruned.safetensors, plots/sparsity.csv, plots/prune.csv
Resumes from work/prune
"""

from functools import partial
from pathlib import Path

from torch import nn

from lightweight.checkpoint import load_checkpoint, save_checkpoint
from lightweight.command import run
from lightweight.data import load_dataset
from lightweight.distillation import load_teacher
from lightweight.files import write_csv
from lightweight.history import COLUMNS, History
from lightweight.optimization import make_schedule
from lightweight.params import Seed, Threads, load_params
from lightweight.pruning import PruneParams, prune, sparsity
from lightweight.resuming import resumable
from lightweight.runtime import start, workspace
from lightweight.training import TrainParams, train

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared.safetensors")
AVERAGED = Path("models/averaged.safetensors")
PRUNED = Path("models/pruned.safetensors")
SPARSITY = Path("plots/sparsity.csv")
HISTORY = Path("plots/prune.csv")
ROOT = workspace()
WORK = ROOT / "work"


def main() -> None:
    params = load_params(PARAMS, seed=Seed, threads=Threads, train=TrainParams, prune=PruneParams)
    data = load_dataset(PREPARED).to(start(params.threads, params.seed))
    averaged = load_checkpoint(AVERAGED, data)
    epochs = range(1, params.prune.epochs + 1)
    schedule = partial(make_schedule, "cosine", params.train, len(epochs))
    how = {"lr": params.prune.lr, "schedule": schedule, "teacher": load_teacher(params.train, ROOT, data)}
    files = [PREPARED, AVERAGED, *params.train.files(ROOT)]
    with resumable(WORK, "prune", vars(params), files, PRUNED, partial(print, flush=True)) as saved:
        history = saved.track("history", History())

        def recover(model: nn.Module) -> None:
            for _ in history.record(train(model, data, params.train, epochs, params.seed, **how, saved=saved)):
                print(history.line(epochs[-1]), flush=True)

        prune(averaged.model, params.prune, recover)
        rows = sparsity(averaged.model)
        save_checkpoint(PRUNED, averaged)
        write_csv(SPARSITY, rows[0], rows)
        write_csv(HISTORY, COLUMNS, history.table())
    zeros = sum(row["zeros"] for row in rows)
    print(f"prune  {zeros:,} of {sum(row['weights'] for row in rows):,} weights are zero  -> {PRUNED}")


if __name__ == "__main__":
    run(main)
