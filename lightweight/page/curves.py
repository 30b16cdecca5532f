"""Curves of training: loss and accuracy on validation by epoch, of every phase that trained, with the kept epochs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lightweight.page.axis import Axis, linear_axis, log_axis, short
from lightweight.page.drawing import Drawing

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 44, 448, 48, 216
NAMES = {"train": "training", "swa": "averaging", "prune": "after pruning", "qat": "with rounding"}


@dataclass(frozen=True)
class Phase:
    """Hold the rows of a history (`epoch`, `val_loss`, `val_accuracy`) and the epochs whose weights were kept.

    `offset` is how many epochs of other phases lie before it on the axis.
    """

    name: str
    rows: Sequence[Mapping[str, str]]
    kept: tuple[int, ...]
    offset: int

    def points(self, key: str, factor: float) -> list[tuple[float, float]]:
        """List epoch and value of every row."""
        return [(int(row["epoch"]) + self.offset, factor * float(row[key])) for row in self.rows]


def make_phases(histories: Mapping[str, Sequence[Mapping[str, str]]], patience: int) -> list[Phase]:
    """Put the histories of train, swa, prune and qat one after another; averaging takes the place of training's end.

    Training keeps the epoch of the best accuracy where it has `patience`, averaging all of its epochs, the others
    their last.
    """
    phases, offset = [], 0
    for name in NAMES:
        if rows := list(histories.get(name, [])):
            kept = [int(rows[-1]["epoch"])]
            if name == "train" and patience:
                kept = [int(max(rows, key=lambda row: float(row["val_accuracy"]))["epoch"])]
            if name == "swa":
                kept = [int(row["epoch"]) for row in rows]
            own = 0 if name in ("train", "swa") else offset
            phases.append(Phase(name, rows, tuple(kept), own))
            offset = max(offset, own + int(rows[-1]["epoch"]))
    return phases


def draw_curves(phases: Sequence[Phase]) -> list[Markup]:
    """Draw the accuracy and the loss on validation, each with all phases; nothing where nothing was trained."""
    if not phases:
        return []
    return [
        _draw(phases, "val_accuracy", "accuracy on validation (%)", 100, log=False),
        _draw(phases, "val_loss", "loss on validation", 1, log=True),
    ]


def _draw(phases: Sequence[Phase], key: str, heading: str, factor: float, *, log: bool) -> Markup:
    curves = {phase.name: phase.points(key, factor) for phase in phases}
    every = [point for points in curves.values() for point in points]
    values = [value for _, value in every]
    log = log and min(values) > 0
    up = log_axis(values, BOTTOM, TOP) if log else linear_axis(values, BOTTOM, TOP)
    last = max(epoch for epoch, _ in every)
    across = Axis(0.5, last + 0.5, LEFT, RIGHT)
    drawing = Drawing(WIDTH, HEIGHT, f"{heading} by epoch: {', '.join(NAMES[phase.name] for phase in phases)}")
    drawing.text(0, 13, heading, class_="heading")
    for tick in up.ticks():
        drawing.line(LEFT, up.at(tick), RIGHT, up.at(tick), class_="grid")
        drawing.text(LEFT - 6, up.at(tick) + 4, short(tick), class_="tick", text_anchor="end")
    for tick in (tick for tick in across.ticks() if tick >= 1 and tick == int(tick)):
        drawing.text(across.at(tick), BOTTOM + 17, f"{tick:g}", class_="tick", text_anchor="middle")
    drawing.line(LEFT, BOTTOM, RIGHT, BOTTOM, class_="axis")
    drawing.text(RIGHT, HEIGHT - 2, "epochs", class_="tick", text_anchor="end")
    x = float(LEFT)
    for phase in phases:  # the key, in the colours of the lines
        drawing.text(x, 33, NAMES[phase.name], class_=f"key {phase.name}")
        x += 8 * len(NAMES[phase.name]) + 10
    for phase in phases:
        points = [(across.at(epoch), up.at(value)) for epoch, value in curves[phase.name]]
        drawing.polyline(points, class_=f"curve {phase.name}")
        for (x, y), (epoch, value) in zip(points, curves[phase.name], strict=True):
            kept = epoch - phase.offset in phase.kept
            about = f"{NAMES[phase.name]}, epoch {epoch - phase.offset:g}: {value:.4g}{', kept' if kept else ''}"
            drawing.add(
                "circle", title=about, cx=x, cy=y, r=4.5 if kept else 2.5, class_=f"{phase.name} {'kept' * kept}"
            )
    return drawing.render()
