"""Print the comparison of the workspace's models, and draw what no stage may depend on: timings, and the page.

    python -m tools.report

Reads   metrics/, plots/
Writes  plots/latency.png, plots/report.html
"""

from pathlib import Path

from lightweight.core.files import read_csv, write_bytes
from lightweight.core.machine import hardware_description
from lightweight.core.process import run_stage
from lightweight.onnx.coverage import describe
from lightweight.reporting.page import read_metrics, write_page
from lightweight.reporting.plots import draw_latency
from lightweight.reporting.summary import explain
from lightweight.reporting.table import comparison, headline, markdown

METRICS = Path("metrics")
PLOTS = Path("plots")


def main() -> None:
    metrics, latency = read_metrics(METRICS)
    print(markdown(comparison(metrics, latency)))
    print(headline(metrics, latency))
    print(*explain(metrics, latency), sep="\n")
    print(f"optimized: {describe(read_csv(PLOTS / 'coverage.csv'))}.")
    if latency:
        write_bytes(PLOTS / "latency.png", draw_latency(latency))
        where = hardware_description(latency["original"])
        print(f"Latency on {where}; `dvc repro -fs benchmark` measures it here and now.")
    write_page(PLOTS / "report.html", metrics, latency, PLOTS)
    print(f"-> {PLOTS / 'report.html'}")


if __name__ == "__main__":
    run_stage(main)
