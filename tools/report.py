"""Print the comparison of the workspace's models, and draw what no stage may depend on: timings, and the page.

    python -m tools.report

Reads   params.yaml, plots/, metrics/latency, metrics/provenance.json, data/prepared.safetensors, DVC's experiments
Writes  plots/latency.png, plots/report.html, metrics/ledger.csv, models/README.md
"""

import hashlib
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lightweight.core.errors import InputError
from lightweight.core.files import read_csv, read_json, write_bytes, write_text
from lightweight.core.machine import hardware_description
from lightweight.core.yaml import read_yaml
from lightweight.evaluation.latency import conditions, imprecision_warnings
from lightweight.execution.process import run_stage
from lightweight.onnx.coverage import describe, read_coverage
from lightweight.page.experiments import flatten, read_experiments
from lightweight.page.page import Report, write_page
from lightweight.reporting.card import ModelCard
from lightweight.reporting.ledger import make_ledger
from lightweight.reporting.plots import draw_latency
from lightweight.reporting.results import read_latency, read_scores
from lightweight.reporting.summary import explain, headline, warn_of_inexact
from lightweight.reporting.table import comparison, plain_text
from tools.ledger import read_integer_scores

if TYPE_CHECKING:
    from lightweight.data.dataset import Dataset, Split

METRICS = Path("metrics")
RECORD = METRICS / "provenance.json"
PLOTS = Path("plots")
PARAMS, PREPARED = Path("params.yaml"), Path("data/prepared.safetensors")
SHIPPED, ORIGINAL = Path("models/optimized.onnx"), Path("models/original.safetensors")


def main() -> None:
    scores, latency = read_scores(PLOTS / "models.csv"), read_latency(METRICS / "latency")
    record = read_json(RECORD) if RECORD.exists() else {}
    notes = warn_of_inexact(record)
    print(plain_text(comparison(scores, latency)))
    print(*headline(scores, latency), *explain(scores, latency, read_csv(PLOTS / "sparsity.csv")), *notes, sep="\n")
    print(f"In the optimized file, {describe(read_coverage(PLOTS / 'coverage.csv'))}")
    if latency:
        write_bytes(PLOTS / "latency.png", draw_latency(latency))
        machine = f"{hardware_description(latency['original'])}, {conditions(latency)}"
        print(*imprecision_warnings(latency), f"Latency on {machine}.", sep="\n")
        print("`dvc repro -fs benchmark` measures it here and now.")
    integers = read_integer_scores()
    write_text(METRICS / "ledger.csv", make_ledger(scores | integers, latency).to_csv())
    params = dict(flatten(read_yaml(PARAMS))) if PARAMS.exists() else {}
    data = find_dataset(PREPARED)
    reader = partial(read_images, data.test) if data else None
    report = Report(scores, latency, PLOTS, params, record, read_experiments(), reader, notes, integers)
    write_page(PLOTS / "report.html", report)
    print(f"-> {PLOTS / 'report.html'}")
    if data and params and SHIPPED.exists():
        hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (SHIPPED, ORIGINAL)}
        card = ModelCard(scores, latency, params, data.classes, hashes, params["quantize.license"])
        write_text(SHIPPED.with_name("README.md"), card.render())
        print(f"-> {SHIPPED.with_name('README.md')}")


def find_dataset(path: Path) -> "Dataset | None":
    """Load the data set; None where it is not there, or another stage would report it."""
    if not path.exists():
        return None
    from lightweight.data.dataset_file import load_dataset  # PyTorch takes seconds

    with suppress(InputError):
        return load_dataset(path)
    return None


def read_images(split: "Split", numbers: list[int]) -> np.ndarray:
    """Read images of a split by number: uint8 (n, C, H, W)."""
    import torch

    return next(split.read([torch.tensor(numbers)]))[0].numpy()


if __name__ == "__main__":
    run_stage(main)
