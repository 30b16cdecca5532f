"""One HTML page holds the table and every picture, so that it can be sent by mail and opened without a network."""

import base64
import html
from pathlib import Path

from lightweight.core.files import read_csv, read_json, write_text
from lightweight.core.machine import hardware_description
from lightweight.core.variants import VARIANTS
from lightweight.evaluation.latency import slowdown_warnings
from lightweight.onnx.coverage import describe, warning
from lightweight.reporting.summary import explain
from lightweight.reporting.table import Metrics, comparison, headline

TITLES = {
    "comparison": "Original and optimized",
    "latency": "Latency, measured in turns in one run",
    "training": "Training",
    "sparsity": "Weights that are removed or zero, by layer",
    "sensitivity": "Accuracy lost where a layer alone is pruned",
    "confusion": "Confusion matrix",
}
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2733; max-width: 1080px; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px }
td, th { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #d5dde5 }
td:first-child, th:first-child { text-align: left }
tr:last-child { font-weight: 600 }
img { max-width: 100% }
h2 { font-size: 1rem; margin: 2rem 0 .3rem }
"""


def read_metrics(folder: Path) -> tuple[Metrics, Metrics]:
    """Scores by variant, and latency by measured model: empty until `benchmark` ran."""
    latency = {path.stem: read_json(path) for path in sorted((folder / "latency").glob("*.json"))}
    order = [name for name in ("original", "exported", "recalibrated", "optimized") if name in latency]
    return {name: read_json(folder / f"{name}.json") for name in VARIANTS}, {name: latency[name] for name in order}


def write_page(path: Path, metrics: Metrics, latency: Metrics, pictures: Path) -> None:
    """Write the page from what lies in the folder `pictures` now; the two stages that draw both call it."""
    head, *rows = comparison(metrics, latency)
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Lightweight</title>",
        f"<style>{STYLE}</style><h1>Lightweight: original against optimized</h1>",
        *(f"<p>{html.escape(line)}</p>" for line in headline(metrics, latency).splitlines()),
        *(f"<p>{html.escape(line)}</p>" for line in [*explain(metrics, latency), *slowdown_warnings(latency)]),
        f"<table>{_row('th', head)}{''.join(_row('td', row) for row in rows)}</table>",
        f"<p>Latency on {html.escape(hardware_description(latency['original']))}.</p>" if latency else "",
    ]
    if (pictures / "coverage.csv").exists():
        layers = read_csv(pictures / "coverage.csv")
        lines = filter(None, [f"The optimized file: {describe(layers)}.", warning(layers)])
        parts += [f"<p>{html.escape(line)}</p>" for line in lines]
    findings = read_csv(pictures / "images.csv") if (pictures / "images.csv").exists() else []
    if findings:
        items = "".join(f"<li>{html.escape('{images} {finding}: {paths}'.format(**row))}</li>" for row in findings)
        parts.append(f"<h2>Images that were skipped or changed</h2><ul>{items}</ul>")
    for name, title in TITLES.items():
        picture = pictures / f"{name}.png"
        if picture.exists():
            data = base64.b64encode(picture.read_bytes()).decode()
            parts.append(f"<h2>{title}</h2><img alt='{title}' src='data:image/png;base64,{data}'>")
    write_text(path, "\n".join(parts) + "</html>\n")


def _row(tag: str, cells: list[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
