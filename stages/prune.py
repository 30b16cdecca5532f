"""Prune: remove the least important weights or channels of the averaged model and let the others recover.

Reads   params.yaml, data/prepared.safetensors, models/averaged.safetensors, models/original.safetensors to distil from
Writes  models/pruned.safetensors, plots/sparsity.csv, plots/prune.csv, plots/probes.csv
Resumes from work/prune
"""

from functools import partial
from pathlib import Path

from lightweight.batchnorm import settled_by
from lightweight.checkpointing.checkpointer import resumable
from lightweight.core.determinism import start, workspace
from lightweight.core.files import write_csv
from lightweight.core.params import Seed, Threads, load_params
from lightweight.core.process import run
from lightweight.dataset import load_dataset
from lightweight.networks.model_file import load_checkpoint, save_checkpoint
from lightweight.pruning.groups import sparsity
from lightweight.pruning.pruner import PROBES, PruneParams, Pruner
from lightweight.training.history import COLUMNS
from lightweight.training.loop import TrainParams, train
from lightweight.training.loss import load_teacher
from lightweight.training.optimizer import make_schedule

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
    original = load_checkpoint(ORIGINAL, data).model
    teacher = original if params.prune.distill else load_teacher(params.train, ROOT, data)
    schedule = partial(make_schedule, "cosine", params.train, params.prune.epochs)
    how = {"lr": params.prune.lr, "schedule": schedule, "teacher": teacher}
    files, say = [PREPARED, ORIGINAL, AVERAGED, *params.train.files(ROOT)], partial(print, flush=True)
    with resumable(WORK, "prune", vars(params), files, PRUNED, say) as saved:
        fine_tune = partial(train, dataset=data, params=params.train, seed=params.seed, **how, saved=saved)
        settle = settled_by(data, params.prune.images, params.seed)
        pruner = Pruner(averaged, data, params.prune, params.seed, fine_tune, settle, saved, say)
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
