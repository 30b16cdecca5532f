"""Latencies of all networks and files, each runtime in its environment, into comparisons/results/peers_latency.csv."""

from pathlib import Path
from typing import Any

import numpy as np

from comparisons.peers.latency import BATCHES, ORIGINAL, RUNTIMES, files_of, time_files
from comparisons.peers.running import python_of, reason, run_limited
from comparisons.peers.trials import Trial
from comparisons.processes import describe_machine
from lightweight.core.errors import InputError
from lightweight.core.files import read_csv, read_json, write_csv, write_json

TIMES = Path("comparisons/results/peers_latency.csv")
COLUMNS = (
    "network", "runtime", "batch", "task", "peer", "method", "ms", "speedup", "speedup_low", "speedup_high", "verdict",
    "error", "cpu", "load", "date",
)  # fmt: skip
CPU_SECONDS = 3600
WITH_OPENVINO = "nncf"  # the environment that has OpenVINO


def measure_latency(network: str, trials: list[Trial], folder: Path, rounds: int) -> None:
    """Time all files of a network in ONNX Runtime and OpenVINO, and write a row for each and batch size."""
    rows: list[dict[str, Any]] = [row for row in read_csv(TIMES) if row["network"] != network] if TIMES.exists() else []
    about = {key: value for key, value in describe_machine().items() if key in COLUMNS}
    paths = {"|".join(trial.key): folder / "results" / trial.script / trial.output for trial in trials}
    for runtime in RUNTIMES:
        files = files_of(folder, paths.items(), runtime)
        for batch in BATCHES:
            for name, found in time_in(runtime, files, batch, folder, rounds).items():
                task, peer, method = name.split("|") if name != ORIGINAL else ("", "", "float32")
                row = {"network": network, "runtime": runtime, "batch": batch, "task": task, "peer": peer}
                row |= {"method": method} | found | about
                rows.append({key: row.get(key, "") for key in COLUMNS})
            print(f"{network}  {runtime}  batch {batch}  {len(files)} files", flush=True)
    write_csv(TIMES, COLUMNS, rows)


def time_in(runtime: str, files: dict[str, Path], batch: int, folder: Path, rounds: int) -> dict[str, dict[str, Any]]:
    """Time files in a runtime: ONNX Runtime here, OpenVINO in its environment. Raises InputError."""
    if runtime == "ONNX Runtime":
        images = np.load(folder / "test.npz")["images"][:batch].astype(np.float32)
        return time_files(runtime, files, images, rounds)
    listed, times = folder / "latency-files.json", folder / "latency-times.json"
    write_json(listed, {name: str(path.absolute()) for name, path in files.items()})
    command = [str(python_of(WITH_OPENVINO)), "-m", "comparisons.peers.latency", str(listed.absolute())]
    done = run_limited([*command, str(batch), str(rounds), str(times.absolute())], CPU_SECONDS, folder)
    if done.returncode:
        raise InputError(f"{runtime}: {reason(done.stderr)}")
    found: dict[str, dict[str, Any]] = read_json(times)
    return found
