"""Benchmark: latency of the original, the pruned and the optimized model, in turns. Timings never enter dvc.lock.

Reads   params.yaml, data/prepared.safetensors, models/{original,recalibrated}.safetensors, models/optimized.onnx
Writes  metrics/latency/MODEL.json
"""

from functools import partial
from pathlib import Path

import torch

from lightweight.core.determinism import configure_torch
from lightweight.core.files import write_json
from lightweight.core.machine import cpu_name, hardware_description, instructions
from lightweight.core.params import Threads, load_params
from lightweight.core.process import run_stage
from lightweight.dataset import load_dataset
from lightweight.evaluation.latency import BenchmarkParams, compare, interleave, slowdown_warnings
from lightweight.networks.model_file import load_model
from lightweight.onnx.export import export_onnx
from lightweight.onnx.session import load_session, open_session, pixels

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared.safetensors")
ORIGINAL = Path("models/original.safetensors")
RECALIBRATED = Path("models/recalibrated.safetensors")
OPTIMIZED = Path("models/optimized.onnx")
METRICS = Path("metrics")
PAIRS = (("recalibrated", "exported"), ("optimized", "exported"), ("optimized", "recalibrated"))  # in the same runtime


def main() -> None:
    params = load_params(PARAMS, threads=Threads, benchmark=BenchmarkParams)
    configure_torch(params.threads, seed=0)
    data = load_dataset(PREPARED)
    original, recalibrated = (load_model(path, data).model for path in (ORIGINAL, RECALIBRATED))
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
    print(
        *slowdown_warnings(results),
        f"benchmark  {hardware_description(results['original'])}  -> {METRICS / 'latency'}",
        sep="\n",
    )


if __name__ == "__main__":
    run_stage(main)
