"""Provenance: record commit, CPU, threads and versions of each artifact, outside of dvc.lock and the artifacts.

Reads   params.yaml, data/prepared.safetensors, models/MODEL, plots/models.csv
Writes  metrics/provenance.json
"""

from pathlib import Path

from lightweight.core.files import write_json
from lightweight.core.params import Threads, load_params
from lightweight.core.variants import VARIANTS
from lightweight.execution.machines import ParallelSection, count_inexact_processes
from lightweight.execution.process import run_stage
from lightweight.reporting.provenance import update_record

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared.safetensors")
MODELS = [Path(f"models/{name}.safetensors") for name in VARIANTS if name != "optimized"]
OPTIMIZED, COMPACT = Path("models/optimized.onnx"), Path("models/compact.lwz")
SCORES = Path("plots/models.csv")
RECORD = Path("metrics/provenance.json")


def main() -> None:
    params = load_params(PARAMS, threads=Threads, train=ParallelSection)
    processes = count_inexact_processes(params.threads, params.train)
    entries = update_record(RECORD, [PREPARED, *MODELS, OPTIMIZED, COMPACT, SCORES], params.threads, processes)
    write_json(RECORD, entries)
    print(f"provenance  {len(entries)} artifacts  -> {RECORD}")


if __name__ == "__main__":
    run_stage(main)
