"""Print the comparison of the workspace's models, and draw what no stage may depend on: timings, and the page.

    python -m tools.report

Reads   plots/, metrics/latency, metrics/provenance.json
Writes  plots/latency.png, plots/report.html
"""

from pathlib import Path

from lightweight.core.files import read_csv, read_json, write_bytes
from lightweight.core.machine import hardware_description
from lightweight.evaluation.latency import conditions, imprecision_warnings
from lightweight.execution.process import run_stage
from lightweight.onnx.coverage import describe, read_coverage
from lightweight.reporting.page import write_page
from lightweight.reporting.plots import draw_latency
from lightweight.reporting.results import read_latency, read_scores
from lightweight.reporting.summary import explain, headline, warn_of_inexact
from lightweight.reporting.table import comparison, plain_text

METRICS = Path("metrics")
RECORD = METRICS / "provenance.json"
PLOTS = Path("plots")


def main() -> None:
    scores, latency = read_scores(PLOTS / "models.csv"), read_latency(METRICS / "latency")
    notes = warn_of_inexact(read_json(RECORD)) if RECORD.exists() else []
    print(plain_text(comparison(scores, latency)))
    print(*headline(scores, latency), *explain(scores, latency, read_csv(PLOTS / "sparsity.csv")), *notes, sep="\n")
    print(f"In the optimized file, {describe(read_coverage(PLOTS / 'coverage.csv'))}")
    if latency:
        write_bytes(PLOTS / "latency.png", draw_latency(latency))
        machine = f"{hardware_description(latency['original'])}, {conditions(latency)}"
        print(*imprecision_warnings(latency), f"Latency on {machine}.", sep="\n")
        print("`dvc repro -fs benchmark` measures it here and now.")
    write_page(PLOTS / "report.html", scores, latency, PLOTS, notes)
    print(f"-> {PLOTS / 'report.html'}")


if __name__ == "__main__":
    run_stage(main)
