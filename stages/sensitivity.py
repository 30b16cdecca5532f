"""Sensitivity: what each layer of the averaged model is worth, pruned alone, and how much all bear together.

Reads   params.yaml, data/prepared.safetensors, models/averaged.safetensors
Writes  plots/sensitivity.csv, plots/largest.csv
Resumes from work/sensitivity
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
from lightweight.networks.model_file import load_model
from lightweight.pruning.groups import find_groups
from lightweight.pruning.importance import Importance
from lightweight.pruning.probe import COLUMNS, SensitivityProbe
from lightweight.sensitivity import SensitivityParams, largest, scan

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared.safetensors")
AVERAGED = Path("models/averaged.safetensors")
SENSITIVITY = Path("plots/sensitivity.csv")
LARGEST = Path("plots/largest.csv")
WORK = project_root() / "work"


def main() -> None:
    params = load_params(PARAMS, seed=Seed, threads=Threads, sensitivity=SensitivityParams)
    chosen = params.sensitivity
    data = load_dataset(PREPARED).to(configure_torch(params.threads, params.seed))
    model = load_model(AVERAGED, data).model
    groups = find_groups(model, data.blank(1), chosen.method, chosen.layers, chosen.exclude, "sensitivity")
    importance = Importance(chosen.importance, data, chosen.images, params.seed)
    files = [PREPARED, AVERAGED]
    with resumable(WORK, "sensitivity", vars(params), files, SENSITIVITY, partial(print, flush=True)) as checkpointer:
        bn_update = make_bn_update(data, chosen.images, params.seed)
        total = 1 + len(groups.sizes) + chosen.probes
        probe = SensitivityProbe(
            model, groups, data, importance, chosen.images, params.seed, bn_update, checkpointer, total
        )
        rows = scan(probe, chosen.amount)
        amount = largest(probe, chosen.max_drop, chosen.probes)
        write_csv(SENSITIVITY, rows[0], rows)
        write_csv(LARGEST, COLUMNS, probe.rows)
    worst = max(rows, key=lambda row: row["drop"])
    print(f"sensitivity  {worst['layer']} matters most ({worst['drop']:.2%} lost)", end="  ")
    print(f"all bear {amount:.1%} for {chosen.max_drop:.1%}  -> {SENSITIVITY}")


if __name__ == "__main__":
    run_stage(main)
