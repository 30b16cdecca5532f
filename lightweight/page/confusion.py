"""The confusion of two models side by side: which class is taken for which, and how often."""

from collections import Counter
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from lightweight.page.drawing import Drawing, shorten, text_width

WIDTH = 460
FONT = 11
MAX_CLASSES = 40  # beyond, the most frequent confusions are listed
MAX_LABEL = 14  # characters
LISTED = 20

Pairs = Counter[tuple[str, str]]  # of actual and predicted class


def count_pairs(rows: Sequence[Mapping[str, str]], column: str) -> Pairs:
    """Count the test images by actual class and by the class in `column`."""
    return Counter((row["actual"], row[column]) for row in rows)


def class_names(*pairs: Pairs) -> list[str]:
    """List the classes that occur, numbers in their order before words."""
    names = {name for counts in pairs for pair in counts for name in pair}
    return sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


def draw_confusion(pairs: Pairs, classes: Sequence[str], heading: str) -> Markup:
    """Draw actual classes by row and predicted ones by column; a square is as dark as its share of the row.

    Confusions have another colour than what is right.
    """
    names = [shorten(name, MAX_LABEL) for name in classes]
    left = 20 + max(text_width(name, FONT) for name in names)
    upright = max(map(len, names)) <= 3 and len(names) <= 20
    top = 44 + (0 if upright else left - 30)
    cell = (WIDTH - left - 4) / len(classes)
    drawing = Drawing(WIDTH, top + cell * len(classes) + 4, f"Confusion matrix: {heading}")
    drawing.text(0, 13, heading, class_="heading")
    drawing.text(WIDTH - 4, 13, "rows: label, columns: predicted", class_="tick", text_anchor="end")
    font = min(FONT, 0.9 * cell)
    for number, name in enumerate(names):
        middle = (number + 0.5) * cell
        drawing.text(
            left - 6, top + middle + 4, name, class_="tick", text_anchor="end", style=f"font-size:{font:.1f}px"
        )
        turn = {} if upright else {"transform": f"rotate(-90 {left + middle:.1f} {top - 6:.1f})"}
        anchor = "middle" if upright else "start"
        x, y = left + middle + (0 if upright else font / 3), top - 6
        drawing.text(x, y, name, class_="tick", text_anchor=anchor, style=f"font-size:{font:.1f}px", **turn)
    totals = Counter[str]()
    for (actual, _), count in pairs.items():
        totals[actual] += count
    drawing.add("rect", x=left, y=top, width=cell * len(names), height=cell * len(names), class_="field")
    for (actual, predicted), count in sorted(pairs.items()):
        row, column = classes.index(actual), classes.index(predicted)
        share, kind = count / totals[actual], "right" if actual == predicted else "wrong"
        about = f"{actual} taken for {predicted}: {count}" if kind == "wrong" else f"{actual} right: {count}"
        place = {"x": left + column * cell, "y": top + row * cell}
        opacity = 0.12 + 0.88 * share if kind == "right" else 0.35 + 0.65 * share
        drawing.add(
            "rect", title=about, **place, width=cell - 1, height=cell - 1, class_=kind, fill_opacity=f"{opacity:.2f}"
        )
        if len(names) <= 20:
            dark = "light" if opacity > 0.6 else "dark"
            drawing.text(
                place["x"] + cell / 2, place["y"] + cell / 2 + 4, count, class_=f"count {dark}", text_anchor="middle"
            )
    return drawing.render()


def most_confused(before: Pairs, after: Pairs) -> list[tuple[str, str, int, int]]:
    """List actual class, predicted class and both counts of the confusions that are most frequent in either."""
    wrong = {pair for counts in (before, after) for pair in counts if pair[0] != pair[1]}
    order = sorted(wrong, key=lambda pair: (-max(before[pair], after[pair]), pair))
    return [(*pair, before[pair], after[pair]) for pair in order[:LISTED]]
