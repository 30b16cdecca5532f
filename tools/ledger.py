"""Print the ledger of the workspace's models: every number that was measured, one column per model.

    python -m tools.ledger

Reads   plots/models.csv, metrics/latency, models/microcontroller/scores.json if `make microcontroller` wrote it
Writes  metrics/ledger.csv, one row per model
"""

from pathlib import Path

from lightweight.checkpointing.run_folder import checksum
from lightweight.core.files import read_json, write_text
from lightweight.execution.process import run_stage
from lightweight.reporting.ledger import INTEGERS, ledger_text, make_ledger
from lightweight.reporting.results import Scores, read_latency, read_scores

SCORES, LATENCY, LEDGER = Path("plots/models.csv"), Path("metrics/latency"), Path("metrics/ledger.csv")
COMPACT, MICROCONTROLLER = Path("models/compact.lwz"), Path("models/microcontroller/scores.json")


def main() -> None:
    table = make_ledger(read_scores(SCORES) | read_integer_scores(), read_latency(LATENCY))
    print(ledger_text(table))
    write_text(LEDGER, table.to_csv())
    print(f"-> {LEDGER}")


def read_integer_scores() -> Scores:
    """Read the scores of the integer-only version of the compact network; none if it is that of another network."""
    if not (MICROCONTROLLER.exists() and COMPACT.exists()):
        return {}
    stored = read_json(MICROCONTROLLER)
    return {INTEGERS: stored["scores"]} if stored["made_from"] == checksum(COMPACT) else {}


if __name__ == "__main__":
    run_stage(main)
