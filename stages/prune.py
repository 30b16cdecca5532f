"""Prune: remove the least important weights or channels of the averaged model and let the others recover.

Reads   params.yaml, data/prepared.safetensors, models/averaged.safetensors, models/original.safetensors to distil from
Writes  models/pruned.safetensors, plots/sparsity.csv, plots/prune.csv, plots/probes.csv
Resumes from work/prune
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import nn

from lightweight.batchnorm import settled_by
from lightweight.checkpoint import load_checkpoint, save_checkpoint
from lightweight.command import run
from lightweight.data import load_dataset
from lightweight.distillation import load_teacher
from lightweight.files import write_csv
from lightweight.history import COLUMNS, History
from lightweight.optimization import make_schedule
from lightweight.params import Seed, Threads, load_params
from lightweight.pruning import PROBES, PruneParams, Pruner
from lightweight.resuming import resumable
from lightweight.runtime import start, workspace
from lightweight.training import TrainParams, train
from lightweight.units import sparsity

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared.safetensors")
ORIGINAL = Path("models/original.safetensors")
AVERAGED = Path("models/averaged.safetensors")
PRUNED = Path("models/pruned.safetensors")
PLOTS = Path("plots")
ROOT = workspace()
WORK = ROOT / "work"


def main() -> None:
    params = load_params(PARAMS, seed=Seed, threads=Threads, train=TrainParams, prune=PruneParams)
    data = load_dataset(PREPARED).to(start(params.threads, params.seed))
    averaged = load_checkpoint(AVERAGED, data)
    distilled = params.prune.distill
    teacher = load_checkpoint(ORIGINAL, data).model if distilled else load_teacher(params.train, ROOT, data)
    per_round = params.prune.epochs
    schedule = partial(make_schedule, "cosine", params.train, per_round)
    how = {"lr": params.prune.lr, "schedule": schedule, "teacher": teacher}
    files = [PREPARED, AVERAGED, *params.train.files(ROOT), *([ORIGINAL] if distilled else [])]
    with resumable(WORK, "prune", vars(params), files, PRUNED, partial(print, flush=True)) as saved:

        def fine_tune(model: nn.Module, history: History, number: int, each_step: Callable[[float], None]) -> None:
            epochs = range((number - 1) * per_round + 1, number * per_round + 1)
            rows = train(model, data, params.train, epochs, params.seed, **how, saved=saved, each_step=each_step)
            for _ in history.record(rows):
                print(history.line(epochs[-1]), flush=True)

        settle = settled_by(data, params.prune.images, params.seed)
        pruner = Pruner(averaged, data, params.prune, params.seed, fine_tune, settle, saved)
        pruned = pruner.run()
        rows = sparsity(averaged.model, pruned.model)
        save_checkpoint(PRUNED, pruned)
        write_csv(PLOTS / "sparsity.csv", rows[0], rows)
        write_csv(PLOTS / "prune.csv", COLUMNS, pruner.history.table())
        write_csv(PLOTS / "probes.csv", PROBES, pruner.probes)
    gone, weights = (sum(row[name] for row in rows) for name in ("pruned", "weights"))
    print(f"prune  {params.prune.method}  {gone:,} of {weights:,} weights are removed or zero  -> {PRUNED}")


if __name__ == "__main__":
    run(main)
