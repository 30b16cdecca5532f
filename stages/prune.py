"""Prune: remove the least important weights or channels of the averaged model, and fine-tune the others.

Reads   params.yaml, data/prepared.safetensors, models/original.safetensors, models/averaged.safetensors
Writes  models/pruned.safetensors, plots/sparsity.csv, plots/prune.csv, plots/probes.csv
Resumes from work/prune
"""

from functools import partial
from pathlib import Path

from lightweight.checkpointing.session import open_session
from lightweight.core.files import write_tables
from lightweight.core.params import GENERAL, load_params
from lightweight.data.dataset_file import load_dataset
from lightweight.execution.determinism import configure_torch, project_root, work_folder
from lightweight.execution.launch import run_parallel_stage
from lightweight.networks.model_file import load_model, save_model
from lightweight.pruning.params import PruneParams
from lightweight.pruning.pruner import Pruner
from lightweight.training.loop import FineTune
from lightweight.training.loss import load_teacher
from lightweight.training.params import TrainParams

PARAMS, PREPARED, PLOTS = Path("params.yaml"), Path("data/prepared.safetensors"), Path("plots")
ORIGINAL, AVERAGED, PRUNED = (Path(f"models/{name}.safetensors") for name in ("original", "averaged", "pruned"))
ROOT = project_root()


def main() -> None:
    params = load_params(PARAMS, **GENERAL, train=TrainParams, prune=PruneParams)
    data = load_dataset(PREPARED).to(configure_torch(params))
    averaged, original = load_model(AVERAGED, data), load_model(ORIGINAL, data).model
    teacher = original if params.prune.distill else load_teacher(params.train, ROOT, data)
    files, log = [PREPARED, ORIGINAL, AVERAGED, *params.train.files(ROOT)], partial(print, flush=True)
    with open_session(work_folder() / "prune", params, data, files, PRUNED, log=log) as session:
        fine_tune = FineTune(session, params.train, params.prune.lr, params.prune.epochs, teacher)
        result = Pruner(averaged, params.prune, session, fine_tune).run()
        save_model(PRUNED, result.model_file)
        write_tables(PLOTS, result.tables())
    print(f"prune  {params.prune.method}  {result.describe()}  -> {PRUNED}")


if __name__ == "__main__":
    run_parallel_stage(main, PARAMS, print)
