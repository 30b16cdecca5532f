"""Search for the smallest or fastest file that loses at most so much accuracy, by pruning and quantization together.

    python -m tools.budget --max-drop 0.01 --objective bytes
    python -m tools.budget --max-drop 0.01 --objective latency    by the table of make latency-table

Every trial is a DVC experiment with the params of params.yaml, but for what it prunes and how it quantizes. All choices
are made on validation. Interrupted, it keeps what it found, and goes on where it was.

Reads   params.yaml, budget/layer_times.csv
Writes  budget/trials.csv, and the chosen values into params.yaml
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any, get_args

from lightweight.core.errors import InputError
from lightweight.core.files import write_csv, write_text
from lightweight.core.yaml import parse_yaml
from lightweight.execution.process import run_stage
from tools.adopt.params_file import format_value, read_text, set_values
from tools.budget.candidate import Objective
from tools.budget.layer_times import TABLE, read_times
from tools.budget.search import Search
from tools.budget.trial import Laboratory, Trial, open_reference
from tools.fingerprints import take_fingerprints
from tools.recipe.experiment import PARAMS

TRIALS = Path("budget/trials.csv")
COLUMNS = (
    "experiment", "method", "allocation", "share", "accuracy", "accuracy_low", "accuracy_high", "drop", "mcnemar_p",
    "size_bytes", "latency_ms", "inside",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.budget", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--max-drop", type=float, required=True, help="of accuracy on validation: 0.01 is a point")
    parser.add_argument("--objective", choices=get_args(Objective), default="bytes", help="what becomes small")
    options = parser.parse_args()
    if not 0 <= options.max_drop < 1:
        raise InputError(f"--max-drop = {options.max_drop}: must be at least 0 and less than 1")
    text = PARAMS.read_text()
    params, objective = parse_yaml(text, str(PARAMS)), options.objective
    read_text(text)  # refuses what no stage would take
    times = read_times(TABLE) if objective == "latency" else None
    fingerprints = take_fingerprints(PARAMS, PARAMS.parent)
    with open_reference(params, fingerprints) as reference:
        run = Laboratory(params, fingerprints, objective, times, reference).run
        notice = partial(tell, objective=objective, max_drop=options.max_drop)
        best = Search(run, objective, options.max_drop, notice).find()
    if best is None:
        raise InputError(f"--max-drop = {options.max_drop}: no file is inside, not even unpruned: see {TRIALS}")
    changes = best.candidate.changes(params, objective)
    changed = set_values(text, {key: format_value(value) for key, value in changes.items()})
    read_text(changed)
    write_text(PARAMS, changed)
    print(f"budget  {describe(best)}  -> {PARAMS}")
    print("next    dvc repro    (what this experiment made comes from DVC's cache)")


def tell(trials: list[Trial], objective: Objective, max_drop: float) -> None:
    """Print the newest trial, and write all of them, the smallest or fastest first."""
    inside = "inside" if trials[-1].drop <= max_drop else "outside"
    print(f"budget  {describe(trials[-1])}  {inside}", flush=True)
    ordered = sorted(trials, key=lambda trial: trial.cost(objective))
    write_csv(TRIALS, COLUMNS, [row(trial, max_drop) for trial in ordered])


def describe(trial: Trial) -> str:
    """Describe a trial in a line."""
    time = "" if trial.latency_ms is None else f"  {trial.latency_ms:.3f} ms by the table"
    return (
        f"{trial.candidate.name}  {trial.accuracy:.2%} on validation, {0.0 - 100 * trial.drop:+.2f} points"
        f"  {trial.size_bytes:,} bytes{time}"
    )


def row(trial: Trial, max_drop: float) -> dict[str, Any]:
    """Make the row of a trial."""
    candidate = trial.candidate
    values = (
        candidate.name, candidate.method, candidate.allocation, candidate.share, trial.accuracy, trial.low, trial.high,
        trial.drop, trial.mcnemar_p, trial.size_bytes, trial.latency_ms, trial.drop <= max_drop,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


if __name__ == "__main__":
    run_stage(main)
