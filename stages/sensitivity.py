"""Sensitivity: what each layer of the averaged model is worth, pruned alone, and how much all bear together.

Reads   params.yaml, data/prepared.safetensors, models/averaged.safetensors
Writes  plots/sensitivity.csv, plots/largest.csv
Resumes from work/sensitivity
"""

from functools import partial
from pathlib import Path

from lightweight.batchnorm import settled_by
from lightweight.checkpoint import load_checkpoint
from lightweight.command import run
from lightweight.data import load_dataset
from lightweight.files import write_csv
from lightweight.importance import Importance
from lightweight.params import Seed, Threads, load_params
from lightweight.probing import COLUMNS, Prober
from lightweight.resuming import resumable
from lightweight.runtime import start, workspace
from lightweight.sensitivity import SensitivityParams, largest, scan
from lightweight.units import find_units

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
