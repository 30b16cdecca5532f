"""Latency as it was measured: a dot per turn of each model, with the median."""

from collections.abc import Mapping, Sequence
from statistics import median

from markupsafe import Markup

from lightweight.page.axis import log_axis, short
from lightweight.page.drawing import Drawing
from lightweight.reporting.results import Latency, batch_sizes

WIDTH, ROW = 460, 46
LEFT, RIGHT, TOP = 104, 408, 34
SPREAD = 10  # up and down, in a fixed order, so that dots do not hide each other
GOLDEN = 0.6180339887
NAMES = {
    "original": ("original", "PyTorch"),
    "exported": ("original", "ONNX Runtime"),
    "recalibrated": ("pruned", "ONNX Runtime"),
    "optimized": ("optimized", "ONNX Runtime"),
}


def draw_strips(latency: Latency, turns: Sequence[Mapping[str, str]]) -> list[Markup]:
    """Draw the milliseconds of each model at each batch size, in rows; `turns` are those of plots/turns.csv.

    Where the turns are missing, or not of this measurement, a line goes from the 5th to the 95th percentile.
    """
    return [_draw(batch, {name: own[batch] for name, own in latency.items()}, turns) for batch in batch_sizes(latency)]


def _draw(batch: str, measured: Mapping[str, Mapping[str, float]], turns: Sequence[Mapping[str, str]]) -> Markup:
    size = batch.removeprefix("batch_")
    samples = {name: own_turns(turns, name, size, own) for name, own in measured.items()}
    ends = [own[key] for own in measured.values() for key in ("latency_ms_p05", "latency_ms_p95", "latency_ms")]
    across = log_axis([*ends, *(value for values in samples.values() for value in values)], LEFT, RIGHT)
    bottom = TOP + ROW * len(measured)
    drawing = Drawing(WIDTH, bottom + 34, f"Milliseconds per call at batch size {size}, by model")
    drawing.text(0, 13, f"batch {size}", class_="heading")
    for tick in across.ticks():
        drawing.line(across.at(tick), TOP, across.at(tick), bottom, class_="grid")
        drawing.text(across.at(tick), bottom + 15, short(tick), class_="tick", text_anchor="middle")
    drawing.text(RIGHT, bottom + 31, "milliseconds per call", class_="tick", text_anchor="end")
    for number, (name, own) in enumerate(measured.items()):
        y, kind = TOP + ROW * (number + 0.5), "current" if name == "optimized" else "other"
        model, runtime = NAMES[name]
        drawing.text(0, y - 1, model, class_="label")
        drawing.text(0, y + 12, runtime, class_="tick")
        if samples[name]:
            dots = [(across.at(ms), y + _jitter(turn)) for turn, ms in enumerate(samples[name])]
            drawing.dots(dots, class_=f"dots {kind}")
        else:
            ends = [own["latency_ms_p05"], own["latency_ms_p95"]]
            drawing.line(*(part for ms in ends for part in (across.at(ms), y)), class_=f"range {kind}")
        x = across.at(own["latency_ms"])
        drawing.line(x, y - SPREAD - 4, x, y + SPREAD + 4, class_="median")
        drawing.text(RIGHT + 8, y + 4, f"{own['latency_ms']:.3g}", class_="label")
    return drawing.render()


def own_turns(turns: Sequence[Mapping[str, str]], name: str, size: str, measured: Mapping[str, float]) -> list[float]:
    """Select the milliseconds of a model at a batch size; none where their median is not the measured one."""
    values = [float(row["milliseconds"]) for row in turns if (row["model"], row["batch"]) == (name, size)]
    return values if values and abs(median(values) / measured["latency_ms"] - 1) < 1e-3 else []


def _jitter(turn: int) -> float:
    return SPREAD * (2 * (turn * GOLDEN % 1) - 1)
