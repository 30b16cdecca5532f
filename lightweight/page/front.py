"""The front of all experiments: accuracy with its interval against bytes or milliseconds, the best of each marked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lightweight.page.axis import linear_axis, log_axis
from lightweight.page.drawing import Drawing, element, text_width

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 44, 448, 30, 262
FONT = 12


@dataclass(frozen=True)
class Point:
    """Hold a model in the front: cost `x`, accuracy with interval, what to show of it, and what a click copies.

    `kind` is `original`, `current` (of the workspace) or `experiment`.
    """

    name: str
    kind: str
    x: float
    accuracy: float
    low: float
    high: float
    about: str
    command: str = ""


def best_points(points: Sequence[Point]) -> list[Point]:
    """List the points that no other beats by cost at their accuracy or a higher one, the cheapest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.accuracy)):
        if not best or point.accuracy > best[-1].accuracy:
            best.append(point)
    return best


def draw_front(points: Sequence[Point], heading: str, unit: str, write: Callable[[float], str]) -> Markup:
    """Draw accuracy in percent against a cost on a logarithmic axis, with a line through the best points."""
    across = log_axis([point.x for point in points], LEFT + 8, RIGHT - 8, margin=1.4)
    up = linear_axis([100 * value for point in points for value in (point.low, point.high)], BOTTOM, TOP)
    drawing = Drawing(WIDTH, HEIGHT, f"Accuracy against {unit}, {len(points)} models", role="group")
    drawing.text(0, 13, heading, class_="heading")
    for tick in up.ticks():
        drawing.line(LEFT, up.at(tick), RIGHT, up.at(tick), class_="grid")
        drawing.text(LEFT - 6, up.at(tick) + 4, f"{tick:g}", class_="tick", text_anchor="end")
    for tick in across.ticks():
        drawing.line(across.at(tick), BOTTOM, across.at(tick), BOTTOM + 4, class_="grid")
        drawing.text(across.at(tick), BOTTOM + 18, write(tick), class_="tick", text_anchor="middle")
    drawing.line(LEFT, BOTTOM, RIGHT, BOTTOM, class_="axis")
    drawing.text(RIGHT, HEIGHT - 3, f"{unit}; to the left is better", class_="tick", text_anchor="end")
    steps: list[tuple[float, float]] = []
    for point in best_points(points):
        place = across.at(point.x), up.at(100 * point.accuracy)
        steps += [(place[0], steps[-1][1]), place] if steps else [place]
    drawing.polyline([*steps, (float(RIGHT), steps[-1][1])], class_="front")
    order = {"experiment": 0, "original": 1, "current": 2}
    for point in sorted(points, key=lambda point: order[point.kind]):
        drawing.parts.append(_mark(point, across.at(point.x), [up.at(100 * y) for y in _heights(point)]))
    for point in points:
        if point.kind != "experiment":
            _label(drawing, point, across.at(point.x), up.at(100 * point.accuracy))
    return drawing.render()


def _heights(point: Point) -> tuple[float, float, float]:
    return point.accuracy, point.low, point.high


def _mark(point: Point, x: float, heights: list[float]) -> Markup:
    """Draw a point with its interval as a group that the keyboard reaches where it has a command to copy."""
    middle, low, high = heights
    parts = [element("line", x1=x, x2=x, y1=low, y2=high, class_="interval")]
    if point.kind == "original":
        parts.append(element("rect", x=x - 5, y=middle - 5, width=10, height=10, class_="mark"))
    else:
        parts.append(element("circle", cx=x, cy=middle, r=6.5 if point.kind == "current" else 5, class_="mark"))
    chosen = {"tabindex": 0, "data_copy": point.command} if point.command else {}
    role = "button" if point.command else "img"
    inside = Markup("").join(parts)
    label = f"{point.name}: {point.about}"
    return element(
        "g", inside, label, class_=f"point {point.kind}", role=role, aria_label=label, data_tip=label, **chosen
    )


def _label(drawing: Drawing, point: Point, x: float, y: float) -> None:
    """Name a point beside it, on the side where there is space."""
    text = {"original": "original", "current": "this run"}[point.kind]
    left = x + 12 + text_width(text, FONT) > RIGHT
    drawing.text(x - 11 if left else x + 11, y - 9, text, class_="label", text_anchor="end" if left else "start")
