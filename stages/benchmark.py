"""Benchmark: measure the latency of the original, the pruned and the optimized model; timings stay out of dvc.lock.

Reads   params.yaml, data/prepared.safetensors, models/{original,recalibrated}.safetensors, models/optimized.onnx
Writes  metrics/latency/MODEL.json, plots/turns.csv
"""

from pathlib import Path
from types import SimpleNamespace

from lightweight.core.files import write_csv, write_json
from lightweight.core.machine import hardware_description
from lightweight.core.params import Threads, load_params
from lightweight.data.dataset_file import load_dataset
from lightweight.evaluation.benchmark import BenchmarkParams, measure_latency
from lightweight.evaluation.latency import conditions, imprecision_warnings, slowdown_warnings
from lightweight.execution.determinism import configure_torch
from lightweight.execution.process import run_stage
from lightweight.networks.model_file import load_model

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared.safetensors")
ORIGINAL = Path("models/original.safetensors")
RECALIBRATED = Path("models/recalibrated.safetensors")
OPTIMIZED = Path("models/optimized.onnx")
LATENCY, TURNS = Path("metrics/latency"), Path("plots/turns.csv")


def main() -> None:
    params = load_params(PARAMS, threads=Threads, benchmark=BenchmarkParams)
    configure_torch(SimpleNamespace(seed=0, threads=params.threads, arithmetic="native"))
    data = load_dataset(PREPARED)
    original, recalibrated = (load_model(path, data).model for path in (ORIGINAL, RECALIBRATED))
    latency, turns = measure_latency(original, recalibrated, OPTIMIZED, data, params.benchmark, params.threads)
    for name, result in latency.items():
        write_json(LATENCY / f"{name}.json", result)
    write_csv(TURNS, ["model", "batch", "round", "milliseconds"], turns)
    machine = f"{hardware_description(latency['original'])}, {conditions(latency)}"
    warnings = [*imprecision_warnings(latency), *slowdown_warnings(latency)]
    print(*warnings, f"benchmark  {machine}  -> {LATENCY}", sep="\n")


if __name__ == "__main__":
    run_stage(main)
