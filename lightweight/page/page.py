"""The page: one HTML file with everything inside, to be sent by mail and opened without a network.

Each section is a template of its own; none of them, nor the drawings, loads anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lightweight.core.files import read_csv, write_text
from lightweight.core.machine import hardware_description
from lightweight.evaluation.latency import conditions, imprecision_warnings, slowdown_warnings
from lightweight.onnx.coverage import describe, read_coverage, warning
from lightweight.page.advice import advise
from lightweight.page.confusion import MAX_CLASSES, class_names, count_pairs, draw_confusion, most_confused
from lightweight.page.curves import draw_curves, make_phases
from lightweight.page.experiments import Experiment
from lightweight.page.front import Point, draw_front
from lightweight.page.gallery import Reader, make_gallery
from lightweight.page.layers import join_layers
from lightweight.page.reproduce import make_recipe
from lightweight.page.strips import draw_strips
from lightweight.reporting.ledger import make_ledger
from lightweight.reporting.ledger_rows import group_ledger
from lightweight.reporting.results import Latency, Scores, batch_sizes
from lightweight.reporting.summary import explain, headline
from lightweight.reporting.verdict import bytes_text, count_text, figures, verdict

TEMPLATES = Path(__file__).with_name("templates")
OPTIMIZED = "models/optimized.onnx"


@dataclass(frozen=True)
class Report:
    """Hold what the page shows: scores, latency, the folder of CSV files, and what is known of how they were made.

    `params` are those of params.yaml by dotted key, `record` is metrics/provenance.json, `notes` are sentences on how
    the models were made, `read_images` reads images of the test split by number, and `integers` are the scores of the
    integer-only version of the compact network, for the ledger alone.
    """

    scores: Scores
    latency: Latency
    plots: Path
    params: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    experiments: Sequence[Experiment] = ()
    read_images: Reader | None = None
    notes: Sequence[str] = ()
    integers: Scores = field(default_factory=dict)

    def rows(self, name: str) -> list[dict[str, str]]:
        """Read the rows of a CSV file; none where the stage that writes the file has not run."""
        path = self.plots / f"{name}.csv"
        return read_csv(path) if path.exists() else []


def write_page(path: Path, report: Report) -> None:
    """Write the page."""
    loader = FileSystemLoader(TEMPLATES)
    html = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    html.globals |= {"bytes_text": bytes_text, "count_text": count_text}
    scores, latency = report.scores, report.latency
    write_text(path, html.get_template("page.html.j2").render(
        verdict=verdict(scores, latency),
        figures=figures(scores, latency),
        network=report.params.get("train.network", "network"),
        dataset=report.params.get("prepare.dataset", ""),
        images=scores["original"]["images"],
        headline=headline(scores, latency),
        warnings=[*report.notes, *slowdown_warnings(latency)],
        imprecise=imprecision_warnings(latency),
        explanations=explain(scores, latency, report.rows("sparsity")),
        recipe=make_recipe(report.record.get(OPTIMIZED, {}), report.params),
        origin=report.record.get(OPTIMIZED, {}),
        findings=report.rows("images"),
        **_fronts(report), **_ledger(report), **_layers(report), **_disagreement(report),
        curves=draw_curves(make_phases(_histories(report), report.params.get("train.patience", 0))),
        strips=draw_strips(latency, report.rows("turns")),
        hardware=f"{hardware_description(latency['original'])}, {conditions(latency)}" if latency else "",
    ))  # fmt: skip


def _histories(report: Report) -> dict[str, list[dict[str, str]]]:
    return {name: report.rows(name) for name in ("train", "swa", "prune", "qat")}


def _fronts(report: Report) -> dict[str, Any]:
    """Draw the experiments that were scored on the same images against bytes, and those that were timed against ms."""
    known = [experiment for experiment in report.experiments if experiment.has_data_of(report.params)]
    sized = [_model(report, name, "size_bytes") for name in ("original", "optimized")]
    sized += [_point(experiment, experiment.metrics["size_bytes"], report) for experiment in known]
    fronts = [draw_front(sized, "accuracy (%) against size", "bytes on disk", bytes_text)]
    for batch in batch_sizes(report.latency)[:1]:
        sources = {"original": "exported", "optimized": "optimized"}
        timed = [
            _model(report, name, report.latency[source][batch]["latency_ms"])
            for name, source in sources.items()
            if source in report.latency
        ]
        found = [(experiment, experiment.latency.get(batch, {}).get("latency_ms")) for experiment in known]
        timed += [_point(experiment, ms, report) for experiment, ms in found if ms]
        if timed:
            heading = f"accuracy (%) against time, {batch.replace('_', ' ')}"
            fronts.append(draw_front(timed, heading, "milliseconds per call", "{:g}".format))
    return {"fronts": fronts, "known": known, "left_out": len(report.experiments) - len(known)}


def _model(report: Report, name: str, x: str | float) -> Point:
    """Make the point of a model of the workspace."""
    own = report.scores[name]
    cost = own[x] if isinstance(x, str) else x
    kind, called = ("original", "original") if name == "original" else ("current", "this run")
    about = f"{own['accuracy']:.2%}, {bytes_text(own['size_bytes'])}"
    return Point(called, kind, cost, own["accuracy"], own["accuracy_low"], own["accuracy_high"], about)


def _point(experiment: Experiment, x: float, report: Report) -> Point:
    """Make the point of an experiment, with the parameters that differ from those of the workspace."""
    own, changes = experiment.metrics, experiment.changes(report.params)
    differing = ", ".join(f"{key}={value}" for key, value in list(changes.items())[:6])
    about = f"{own['accuracy']:.2%}, {bytes_text(own['size_bytes'])}; {differing or 'the same parameters'}"
    ends = own["accuracy"], own["accuracy_low"], own["accuracy_high"]
    return Point(experiment.name, "experiment", x, *ends, about, f"dvc exp apply {quote(experiment.name)}")


def _ledger(report: Report) -> dict[str, Any]:
    ledger = make_ledger(report.scores | report.integers, report.latency)
    return {"models": list(ledger.index), "ledger": group_ledger(ledger)}


def _layers(report: Report) -> dict[str, Any]:
    path = report.plots / "coverage.csv"
    coverage = read_coverage(path) if path.exists() else []
    tables = (report.rows(name) for name in ("layers", "sensitivity", "sparsity"))
    layers = join_layers(coverage, *tables)
    return {
        "layers": layers,
        "largest_drop": max((layer.drop for layer in layers if layer.drop), default=0),
        "coverage": [f"In the optimized file, {describe(coverage)}", *filter(None, [warning(coverage)])]
        if coverage
        else [],
        "advice": advise(report.scores, report.latency, coverage, _histories(report), report.params),
    }


def _disagreement(report: Report) -> dict[str, Any]:
    """Make the gallery and the two confusion matrices, or the list of confusions where there are many classes."""
    rows = report.rows("predictions")
    columns = [column for column in ("original", "predicted") if rows and column in rows[0]]
    pairs = [count_pairs(rows, column) for column in columns]
    classes = class_names(*pairs)
    draw = partial(draw_confusion, classes=classes)
    names = {"original": "original", "predicted": "optimized"}
    few = 0 < len(classes) <= MAX_CLASSES
    return {
        "gallery": make_gallery(rows, report.read_images or _no_images),
        "matrices": [draw(own, heading=names[column]) for own, column in zip(pairs, columns, strict=True)]
        if few
        else [],
        "confused": most_confused(*pairs) if len(pairs) == 2 and not few else [],
    }


def _no_images(numbers: list[int]) -> np.ndarray:
    """Stand for images that are not there: a blank one each."""
    return np.zeros((len(numbers), 1, 1, 1), dtype=np.uint8)
