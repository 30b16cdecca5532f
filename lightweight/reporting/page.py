"""One HTML page holds the table and every picture, so that it can be sent by mail and opened without a network."""

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from lightweight.core.files import read_csv, write_text
from lightweight.core.machine import hardware_description
from lightweight.evaluation.latency import conditions, imprecision_warnings, slowdown_warnings
from lightweight.onnx.coverage import describe, read_coverage, warning
from lightweight.reporting.results import Latency, Scores
from lightweight.reporting.summary import explain, headline
from lightweight.reporting.table import comparison

TEMPLATE = Path(__file__).with_name("page.html.j2")
TITLES = {
    "comparison": "Original and optimized",
    "latency": "Latency, measured in turns in one run",
    "training": "Training",
    "sparsity": "Weights that are removed or zero, by layer",
    "sensitivity": "Accuracy lost where a layer alone is pruned",
    "confusion": "Confusion matrix",
}


def write_page(path: Path, scores: Scores, latency: Latency, plots: Path, notes: Sequence[str] = ()) -> None:
    """Write the page from the metrics and from the pictures and CSV files that lie in the folder `plots` now.

    `notes` are sentences on how the models were made.
    """
    layers = read_coverage(plots / "coverage.csv") if (plots / "coverage.csv").exists() else []
    sentences = [*headline(scores, latency), *explain(scores, latency, _rows(plots / "sparsity.csv"))]
    html = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    page = html.from_string(TEMPLATE.read_text()).render(
        sentences=[*sentences, *notes, *imprecision_warnings(latency), *slowdown_warnings(latency)],
        table=comparison(scores, latency),
        hardware=f"{hardware_description(latency['original'])}, {conditions(latency)}" if latency else "",
        coverage=[f"In the optimized file, {describe(layers)}", *filter(None, [warning(layers)])] if layers else [],
        findings=_rows(plots / "images.csv"),
        pictures=[
            {"title": title, "data": base64.b64encode((plots / f"{name}.png").read_bytes()).decode()}
            for name, title in TITLES.items()
            if (plots / f"{name}.png").exists()
        ],
    )
    write_text(path, page)


def _rows(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file; none where the stage that writes the file has not run."""
    return read_csv(path) if path.exists() else []
