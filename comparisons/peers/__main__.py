"""The field, side by side: each peer compresses the same trained networks with the same images, as it documents best.

    python -m comparisons.peers [--raw data/raw] [--network resnet20] [--script NAME] [--latency]

Every peer has an environment of its own in .venv/peers, made from comparisons/peers/requirements, and a script in
comparisons/peers/scripts, which is the code that its user writes. A script runs twice, within a limit of CPU seconds,
and its file is scored on all test images. Networks are those whose weights are in recipes/weights, or in RAW where
`make weights` puts them. What is measured stands in comparisons/results/peers.csv and is not measured again: delete
its lines to do so. `--latency` times all files in ONNX Runtime and OpenVINO, for which the machine must be quiet.
Writes comparisons/results/peers.csv, peers_latency.csv and, from both and comparisons/peers/peers.toml, peers.md.
"""

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from comparisons.peers.given import IMAGES, RECIPES, find_weights, prepare
from comparisons.peers.report import COLUMNS, FIGURES, report
from comparisons.peers.running import OWN, Run, python_of, run_script
from comparisons.peers.scoring import evaluate, score_file
from comparisons.peers.timing import measure_latency
from comparisons.peers.trials import Trial, count_lines, list_trials
from comparisons.peers.versions import versions_of
from lightweight.core.errors import InputError
from lightweight.core.files import read_csv, write_csv
from lightweight.core.machine import cpu_name, load_average, vector_extensions
from lightweight.data.dataset import Dataset
from lightweight.evaluation.statistics import mcnemar_p
from lightweight.execution.process import run_stage

ROUNDS = 30
WORK = Path("work/peers")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--raw", type=Path, default=Path("data/raw"))
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--network", action="append", choices=RECIPES, dest="networks", help="by default all")
    parser.add_argument(
        "--script", action="append", dest="scripts", help="of comparisons/peers/scripts, by default all"
    )
    parser.add_argument("--test-images", type=int, help="as many of each class; by default all")
    parser.add_argument("--latency", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of --latency, at least")
    given = parser.parse_args()
    torch.set_num_threads(1)
    trials = list_trials()
    for network in given.networks or RECIPES:
        weights = find_weights(network, given.raw)
        if weights is None:
            print(f"{network}  has no weights here: see make weights", flush=True)
        elif given.latency:
            measure_latency(network, trials, given.work / network, given.rounds)
        else:
            chosen = [trial for trial in trials if given.scripts is None or trial.script in given.scripts]
            folder = given.work / network
            measure(network, chosen, prepare(network, weights, given.raw, folder, given.test_images), folder)
    report()


def measure(network: str, trials: list[Trial], data: Dataset, folder: Path) -> None:
    """Run the trials of a network that are not measured yet, and write a row for each."""
    rows: list[dict[str, Any]] = list(read_csv(FIGURES)) if FIGURES.exists() else []
    known = {tuple(row[key] for key in ("network", "task", "peer", "method")) for row in rows}
    labels = data.test.labels.numpy()
    original, _ = evaluate(folder / "original.onnx", data, folder, python_of(OWN))
    for trial in trials:
        if network in trial.networks and (network, *trial.key) not in known:
            row = about(network, trial) | make_file(trial, folder)
            if not row["error"]:
                path = result_folder(folder, trial) / trial.output
                try:
                    model, exact = evaluate(path, data, folder, python_of(trial.environment))
                    np.savez(path.parent / "predictions.npz", found=model.predictions, exact=exact)
                    row |= score_file(model, exact, original, labels)
                    row |= {f"original_{key}": original.costs[key] for key in ("macs",)}
                    row["original_bytes"] = original.costs["size_bytes"]
                except InputError as error:
                    row["error"] = str(error)
            rows.append(row)
            write_csv(FIGURES, COLUMNS, compared(rows, network, trials, folder, labels))
            print(f"{network}  {' '.join(trial.key)}  {row['error'] or format(row['accuracy'], '.2%')}", flush=True)


def about(network: str, trial: Trial) -> dict[str, Any]:
    """Say what a row is of, what its user writes, and where and when it was measured."""
    return {
        **dict.fromkeys(COLUMNS, ""),
        "network": network,
        "task": trial.task,
        "peer": trial.peer,
        "method": trial.method,
        "lines": count_lines(trial.path),
        "calibration_images": IMAGES,
        "cpu": f"{cpu_name()} ({vector_extensions()})",
        "load": load_average(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def make_file(trial: Trial, folder: Path) -> dict[str, Any]:
    """Run the script of a trial twice; returns its seconds, and whether both files are the same bytes, or the error."""
    try:
        python = python_of(trial.environment)
    except InputError as error:
        return {"error": str(error)}
    versions = {"versions": versions_of(trial.environment, python)}
    first = run_script(trial, python, folder, result_folder(folder, trial))
    row: dict[str, Any] = versions | {"error": first.error, "seconds": first.seconds, "cpu_seconds": first.cpu_seconds}
    if not first.error:
        row["same_bytes"] = again(trial, python, folder, first)
    return row


def again(trial: Trial, python: Path, folder: Path, first: Run) -> str:
    """Run the script of a trial once more, and say whether it left the same bytes."""
    other = result_folder(folder, trial)
    second = run_script(trial, python, folder, other.with_name(f"{other.name}-again"))
    return second.error or ("yes" if second.digest == first.digest else "no")


def result_folder(folder: Path, trial: Trial) -> Path:
    """Return the folder in which the script of a trial leaves its files."""
    return folder / "results" / trial.script


def compared(
    rows: list[dict[str, Any]], network: str, trials: list[Trial], folder: Path, labels: np.ndarray
) -> Iterator[dict[str, Any]]:
    """Yield all rows, those of the network paired with our file for the same task, image by image."""
    by_key = {trial.key: trial for trial in trials}
    references = {trial.task: trial for trial in list_trials() if trial.reference}
    for row in rows:
        trial = by_key.get((row["task"], row["peer"], row["method"]))
        if row["network"] == network and trial and not row["error"] and trial.task in references:
            own, rival = (result_folder(folder, each) / "predictions.npz" for each in (references[trial.task], trial))
            if own.exists() and rival.exists():
                row = row | pair(np.load(own)["found"] == labels, np.load(rival)["found"] == labels)
        yield {key: row[key] for key in COLUMNS}


def pair(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """Count the images that only one of two files gets right, and test whether that is chance."""
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    return {"only_ours": only_ours, "only_theirs": only_theirs, "ours_p": mcnemar_p(only_ours, only_theirs)}


if __name__ == "__main__":
    run_stage(main)
