"""A model compared with itself on a busy machine: how often the benchmark sees a difference where there is none.

    python -m comparisons.self_latency [--runs 60] [--repetitions 5]

Compares models/optimized.onnx with itself at batch 1 and 64 and on 1 and 2 threads, while a process of its own keeps
one core busy, and with models/original.safetensors in PyTorch, where the intervals of all repetitions should overlap.
Takes one to three hours, and goes on where it was interrupted: delete its figures to measure anew. Writes
comparisons/results/self_latency.csv, a row for each time, and self_latency.md.
"""

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from comparisons.processes import describe_machine, one_core_busy
from lightweight.core.files import read_bytes, read_csv, write_csv, write_text
from lightweight.core.machine import load_average
from lightweight.core.memory_format import to_memory_format
from lightweight.core.params import load_params
from lightweight.data.dataset import Dataset
from lightweight.data.dataset_file import load_dataset
from lightweight.evaluation.benchmark import BenchmarkParams, open_file, open_network
from lightweight.evaluation.latency import compare_ratio
from lightweight.evaluation.timing import Effort, Opener, time_in_turns
from lightweight.execution.process import run_stage
from lightweight.networks.model_file import load_model
from lightweight.reporting.table import markdown

PARAMS, PREPARED = Path("params.yaml"), Path("data/prepared.safetensors")
ORIGINAL, OPTIMIZED = Path("models/original.safetensors"), Path("models/optimized.onnx")
FIGURES, TABLE = (Path("comparisons/results") / f"self_latency.{kind}" for kind in ("csv", "md"))
RATIO = ["rounds", "speedup", "speedup_low", "speedup_high", "precise", "verdict"]
CELL = ["with", "batch", "threads"]
COLUMNS = [*CELL, "run", *RATIO, "load", "cpu", "cores", "date", "torch"]
ITSELF, OTHER = "itself", "the original"
BATCHES, THREADS = (1, 64), (1, 2)
VERDICTS = ("no difference", "faster", "slower")
GOAL = 0.95  # of the comparisons of a model with itself, which must show no difference


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=60, help="comparisons with itself in each cell")
    parser.add_argument("--repetitions", type=int, default=5, help="comparisons with the original in each cell")
    given = parser.parse_args()
    dataset, params = load_dataset(PREPARED), load_params(PARAMS, benchmark=BenchmarkParams).benchmark
    about, rows = describe_machine(), read_csv(FIGURES) if FIGURES.exists() else []
    first = max((int(row["run"]) for row in rows), default=0) + 1
    with one_core_busy():
        for run in range(first, max(given.runs, given.repetitions) + 1):
            for threads in THREADS:
                torch.set_num_threads(threads)
                chosen = [ITSELF] * (run <= given.runs) + [OTHER] * (run <= given.repetitions)
                for models, size, openers in list_comparisons(chosen, dataset, threads):
                    row = {"with": models, "batch": size, "threads": threads, "run": run}
                    rows.append(row | compare_models(openers, params, threads) | about | {"load": load_average()})
            write_csv(FIGURES, COLUMNS, rows)
            print(f"run {run}", flush=True)
    text = describe(pd.read_csv(FIGURES))
    write_text(TABLE, text)
    print(text)


def list_comparisons(chosen: list[str], dataset: Dataset, threads: int) -> Iterator[tuple[str, int, dict[str, Opener]]]:
    """List what is compared with what, at which batch size, by the openers of model and reference."""
    content, original = read_bytes(OPTIMIZED), load_model(ORIGINAL, dataset).model
    to_memory_format(original, torch.channels_last)
    for size in BATCHES:
        images = dataset.test.images[torch.arange(size) % len(dataset.test)]
        file = partial(open_file, content, images, threads)
        references = {ITSELF: file, OTHER: partial(open_network, original, dataset.normalize(images))}
        yield from ((models, size, {"model": file, "reference": references[models]}) for models in chosen)


def compare_models(openers: dict[str, Opener], params: BenchmarkParams, threads: int) -> dict[str, Any]:
    """Compare a model with a reference as the benchmark does, and return the ratio with the number of rounds."""
    samples = time_in_turns(openers, [("model", "reference")], Effort(params.rounds, params.precision, threads))
    ratio = compare_ratio(samples["model"], samples["reference"], params.precision)
    return {"rounds": len(samples["model"])} | ratio


def describe(figures: pd.DataFrame) -> str:
    """Count verdicts by cell in Markdown, and say whether the goals are reached."""
    itself = figures[figures["with"] == ITSELF]
    same = int((itself["verdict"] == "no difference").sum())
    first = figures.iloc[0]
    machine = f"{first['cores']} cores of {first['cpu']}, one of them kept busy by another process, {first['date']}"
    load = f"load {figures['load'].min():.1f} to {figures['load'].max():.1f}"
    return (
        f"`models/optimized.onnx` compared with itself, and with the original in PyTorch, on {machine}, {load}.\n\n"
        f"{markdown(count_verdicts(figures))}\n"
        f"With itself there is no difference {same} of {len(itself)} times (goal: at least {GOAL * len(itself):.0f}).\n"
    )


def count_verdicts(figures: pd.DataFrame) -> pd.DataFrame:
    """Count the verdicts of each cell, how many ratios are precise, and say whether all intervals overlap, as text."""
    rows = []
    for cell, own in figures.groupby(CELL, sort=False):
        low, high = own["speedup_low"], own["speedup_high"]
        row = dict(zip(CELL, map(str, cell), strict=True)) | {"times": str(len(own))}
        row |= {verdict: str((own["verdict"] == verdict).sum()) for verdict in VERDICTS}
        row |= {"precise": str(own["precise"].sum()), "rounds": f"{own['rounds'].min()} to {own['rounds'].max()}"}
        row |= {"speedups": f"{own['speedup'].min():.2f} to {own['speedup'].max():.2f}"}
        row |= {"widest interval": f"±{(100 * (high - low) / 2 / own['speedup']).max():.1f} %"}
        rows.append(row | {"intervals overlap": "yes" if low.max() <= high.min() else "no"})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    run_stage(main)
