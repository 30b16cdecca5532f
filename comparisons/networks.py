"""Networks of all kinds, pruned and quantized: the MACs that are left, what is spared and why, and the time it takes.

    make networks [ARGS=--int8]    (or python -m comparisons.networks [--int8] [NETWORK ...], where timm is installed)

Random weights with stirred BatchNorm statistics, the smallest sensible image size, amount 0.5 of the channels of every
group; beside it torch-pruning as its README shows. Every trial is a process of its own on one thread, limited in CPU
seconds. What comparisons/results/networks.csv holds is not measured again. `--int8` adds static quantization and one
batch of qat. One thing is measured of all networks before the next, in turn of every design: what there is after an
interruption is of many.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from comparisons.networks_list import list_networks, spread
from comparisons.networks_report import FIGURES, report
from comparisons.networks_trial import run_trial
from lightweight.core.files import read_csv, write_csv
from lightweight.execution.process import run_stage

COLUMNS = [
    *("network", "image_size", "macs", "left", "torch_pruning", "planning_s", "finite", "reloads", "spared"),
    *(f"{method}_{figure}" for method in ("static", "qat") for figure in ("coverage", "logit_error", "seconds")),
]


def main() -> None:
    names = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    rows: dict[str, dict[str, Any]] = {row["network"]: row for row in read_csv(FIGURES)} if FIGURES.exists() else {}
    networks = [(name, size) for name, size in list_networks() if not names or name in names]
    torch.set_num_threads(1)
    steps = [("left", measure_pruning), ("torch_pruning", measure_torch_pruning)]
    if "--int8" in sys.argv:
        steps += [("static_coverage", measure_static), ("qat_coverage", measure_qat)]
    for column, measure in steps:
        for name, size in spread(networks):
            row = rows.setdefault(name, {"network": name, "image_size": size})
            if not row.get(column):
                found = measure(name, size)
                row |= found
                write_csv(FIGURES, COLUMNS, rows.values())
                print(f"{name}  {' '.join(f'{key} {value}' for key, value in found.items())[:300]}", flush=True)
    report()


def measure_pruning(name: str, size: int) -> dict[str, Any]:
    """Prune a network, and read it again in another process."""
    with tempfile.TemporaryDirectory() as folder:
        found = try_out("ours", name, size, folder)
        if "error" in found:
            return {"left": found["error"]}
        reloads = try_out("reload", name, size, folder)
    return found | {"reloads": reloads.get("reloads", reloads.get("error"))}


def measure_torch_pruning(name: str, size: int) -> dict[str, Any]:
    """Prune a network by torch-pruning."""
    found = try_out("torch-pruning", name, size, ".")
    return {"torch_pruning": found.get("left", found.get("error"))}


def measure_static(name: str, size: int) -> dict[str, Any]:
    """Quantize a network after training."""
    return _quantize("static", name, size)


def measure_qat(name: str, size: int) -> dict[str, Any]:
    """Train a network for quantization with one batch."""
    return _quantize("qat", name, size)


def _quantize(method: str, name: str, size: int) -> dict[str, Any]:
    found = try_out(method, name, size, ".")
    if "error" in found:
        return {f"{method}_coverage": found["error"]}
    return {f"{method}_{key}": value for key, value in found.items()}


def try_out(kind: str, name: str, size: int, folder: str) -> dict[str, Any]:
    """Run one trial in a process that is forked, without loading libraries again.

    `hang` is the error of one that does not end in its time.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            os.write(writing, json.dumps(run_trial(kind, name, size, Path(folder))).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    signal = os.waitpid(child, 0)[1] & 0x7F
    if not text:
        return {"error": "hang" if signal in (9, 24) else f"ended by signal {signal}"}
    found: dict[str, Any] = json.loads(text)
    return found


if __name__ == "__main__":
    run_stage(main)
