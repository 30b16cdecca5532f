"""Prune: remove the least important weights or channels of the averaged model and let the others recover.

Reads   params.yaml, data/prepared.safetensors, models/averaged.safetensors, models/original.safetensors to distil from
Writes  models/pruned.safetensors, plots/sparsity.csv, plots/prune.csv, plots/probes.csv
Resumes from work/prune
"""

from functools import partial
from pathlib import Path

from lightweight.batchnorm import make_bn_update
from lightweight.checkpointing.checkpointer import resumable
from lightweight.core.determinism import configure_torch, project_root
from lightweight.core.files import write_csv
from lightweight.core.params import Seed, Threads, load_params
from lightweight.core.process import run_stage
from lightweight.dataset import load_dataset
from lightweight.networks.model_file import load_model, save_model
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
ROOT = project_root()
WORK = ROOT / "work"


def main() -> None:
    params = load_params(PARAMS, seed=Seed, threads=Threads, train=TrainParams, prune=PruneParams)
    data = load_dataset(PREPARED).to(configure_torch(params.threads, params.seed))
    averaged = load_model(AVERAGED, data)
    original = load_model(ORIGINAL, data).model
    teacher = original if params.prune.distill else load_teacher(params.train, ROOT, data)
    schedule = partial(make_schedule, "cosine", params.train, params.prune.epochs)
    how = {"lr": params.prune.lr, "schedule": schedule, "teacher": teacher}
    files, log = [PREPARED, ORIGINAL, AVERAGED, *params.train.files(ROOT)], partial(print, flush=True)
    with resumable(WORK, "prune", vars(params), files, PRUNED, log) as checkpointer:
        fine_tune = partial(
            train, dataset=data, params=params.train, seed=params.seed, **how, checkpointer=checkpointer
        )
        bn_update = make_bn_update(data, params.prune.images, params.seed)
        pruner = Pruner(averaged, data, params.prune, params.seed, fine_tune, bn_update, checkpointer, log)
        pruned = pruner.run()
        rows = sparsity(averaged.model, pruned.model)
        save_model(PRUNED, pruned)
        write_csv(PLOTS / "sparsity.csv", rows[0], rows)
        write_csv(PLOTS / "prune.csv", COLUMNS, pruner.history.table())
        write_csv(PLOTS / "probes.csv", PROBES, pruner.probes)
    gone, weights = (sum(row[name] for row in rows) for name in ("pruned", "weights"))
    print(f"prune  {params.prune.method}  {gone:,} of {weights:,} weights are removed or zero  -> {PRUNED}")


if __name__ == "__main__":
    run_stage(main)
