"""Report: copy the metrics of one variant to a fixed path, which `dvc metrics diff` compares.

Reads   params.yaml, metrics/VARIANT.json
Writes  metrics/model.json
"""

from pathlib import Path

from lightweight.core.files import read_json, write_json
from lightweight.core.params import load_params
from lightweight.execution.process import run_stage
from lightweight.reporting.params import ReportParams

PARAMS = Path("params.yaml")
METRICS = Path("metrics")
MODEL = Path("metrics/model.json")


def main() -> None:
    params = load_params(PARAMS, report=ReportParams)
    write_json(MODEL, read_json(METRICS / f"{params.report.model}.json"))
    print(f"report  {params.report.model}  -> {MODEL}")


if __name__ == "__main__":
    run_stage(main)
