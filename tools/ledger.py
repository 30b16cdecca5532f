"""Print the ledger of the workspace's models: every number that was measured, one column per model.

    python -m tools.ledger

Reads   plots/models.csv, metrics/latency
Writes  metrics/ledger.csv, one row per model
"""

from pathlib import Path

from lightweight.core.files import write_text
from lightweight.execution.process import run_stage
from lightweight.reporting.ledger import ledger_text, make_ledger
from lightweight.reporting.results import read_latency, read_scores

SCORES, LATENCY, LEDGER = Path("plots/models.csv"), Path("metrics/latency"), Path("metrics/ledger.csv")


def main() -> None:
    table = make_ledger(read_scores(SCORES), read_latency(LATENCY))
    print(ledger_text(table))
    write_text(LEDGER, table.to_csv())
    print(f"-> {LEDGER}")


if __name__ == "__main__":
    run_stage(main)
