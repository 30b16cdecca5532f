"""Sensitivity: what each layer of the averaged model is worth, pruned alone, and how much all bear together.

Reads   params.yaml, data/prepared.safetensors, models/averaged.safetensors
Writes  plots/sensitivity.csv, plots/largest.csv
Resumes from work/sensitivity
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
from lightweight.networks.model_file import load_checkpoint
from lightweight.pruning.groups import find_units
from lightweight.pruning.importance import Importance
from lightweight.pruning.probe import COLUMNS, Prober
from lightweight.sensitivity import SensitivityParams, largest, scan

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared.safetensors")
AVERAGED = Path("models/averaged.safetensors")
SENSITIVITY = Path("plots/sensitivity.csv")
LARGEST = Path("plots/largest.csv")
WORK = workspace() / "work"


def main() -> None:
    params = load_params(PARAMS, seed=Seed, threads=Threads, sensitivity=SensitivityParams)
    chosen = params.sensitivity
    data = load_dataset(PREPARED).to(start(params.threads, params.seed))
    model = load_checkpoint(AVERAGED, data).model
    units = find_units(model, data.blank(1), chosen.method, chosen.layers, chosen.exclude, "sensitivity")
    importance = Importance(chosen.importance, data, chosen.images, params.seed)
    files = [PREPARED, AVERAGED]
    with resumable(WORK, "sensitivity", vars(params), files, SENSITIVITY, partial(print, flush=True)) as saved:
        settle = settled_by(data, chosen.images, params.seed)
        total = 1 + len(units.sizes) + chosen.probes
        prober = Prober(model, units, data, importance, chosen.images, params.seed, settle, saved, total)
        rows = scan(prober, chosen.amount)
        amount = largest(prober, chosen.max_drop, chosen.probes)
        write_csv(SENSITIVITY, rows[0], rows)
        write_csv(LARGEST, COLUMNS, prober.rows)
    worst = max(rows, key=lambda row: row["drop"])
    print(f"sensitivity  {worst['layer']} matters most ({worst['drop']:.2%} lost)", end="  ")
    print(f"all bear {amount:.1%} for {chosen.max_drop:.1%}  -> {SENSITIVITY}")


if __name__ == "__main__":
    run(main)
