"""Benchmark: latency of the original, the pruned and the optimized model, in turns. Timings never enter dvc.lock.

Reads   params.yaml, data/prepared.safetensors, models/{original,recalibrated}.safetensors, models/optimized.onnx
Writes  metrics/latency/MODEL.json, plots/latency.png, plots/report.html
"""

from functools import partial
from pathlib import Path

import torch

from lightweight.checkpoint import load_checkpoint
from lightweight.command import run
from lightweight.data import load_dataset
from lightweight.explanation import slower
from lightweight.export import export_onnx
from lightweight.files import write_bytes, write_json
from lightweight.inference import load_session, open_session, pixels
from lightweight.latency import BenchmarkParams, compare, interleave
from lightweight.machine import cpu_name, instructions
from lightweight.page import read_metrics, write_page
from lightweight.params import Threads, load_params
from lightweight.plotting import draw_latency
from lightweight.report import where
from lightweight.runtime import start

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared.safetensors")
ORIGINAL = Path("models/original.safetensors")
RECALIBRATED = Path("models/recalibrated.safetensors")
OPTIMIZED = Path("models/optimized.onnx")
METRICS = Path("metrics")
PLOTS = Path("plots")
PAIRS = (("recalibrated", "exported"), ("optimized", "exported"), ("optimized", "recalibrated"))  # in the same runtime


def main() -> None:
    params = load_params(PARAMS, threads=Threads, benchmark=BenchmarkParams)
    start(params.threads, seed=0)
    data = load_dataset(PREPARED)
    original, recalibrated = (load_checkpoint(path, data).model for path in (ORIGINAL, RECALIBRATED))
    sessions = {
        "exported": open_session(export_onnx(original, data).SerializeToString(), params.threads),
        "recalibrated": open_session(export_onnx(recalibrated, data).SerializeToString(), params.threads),
        "optimized": load_session(OPTIMIZED, params.threads),
    }
    original.to(memory_format=torch.channels_last)
    about = {"cpu": cpu_name(), "instructions": instructions(), "threads": params.threads}
    results = {name: dict(about) for name in ("original", *sessions)}
    for size in params.benchmark.batch_sizes:
        images = data.test.images[torch.arange(size) % len(data.test)]
        calls = {"original": torch.inference_mode()(partial(original, data.normalize(images)))}
        calls |= {name: partial(session.run, None, {"input": pixels(images)}) for name, session in sessions.items()}
        for name, found in compare(interleave(calls, params.benchmark.rounds), "original", PAIRS).items():
            results[name][f"batch_{size}"] = found
    for name, result in results.items():
        write_json(METRICS / "latency" / f"{name}.json", result)
    write_bytes(PLOTS / "latency.png", draw_latency(results))
    write_page(PLOTS / "report.html", *read_metrics(METRICS), PLOTS)
    print(*slower(results), f"benchmark  {where(results)}  -> {METRICS / 'latency'}", sep="\n")


if __name__ == "__main__":
    run(main)
