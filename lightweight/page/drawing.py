"""Drawings as inline SVG: every text is escaped, colours come from the page's style sheet by class."""

from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup, escape

CHARACTER = 0.56  # width of an average one, as a share of the font size


@dataclass
class Drawing:
    """Collect the elements of an SVG of so many units; `title` is what it shows, for those who cannot see it.

    `role` is `img` for a picture, and `group` for one whose parts can be chosen.
    """

    width: float
    height: float
    title: str
    role: str = "img"
    parts: list[Markup] = field(default_factory=list)

    def add(self, tag: str, text: object = "", title: str = "", **attributes: Any) -> None:
        """Append an element with its text, and a `title` that is shown beside the pointer."""
        self.parts.append(element(tag, text, title, **attributes))

    def line(self, x1: float, y1: float, x2: float, y2: float, **attributes: Any) -> None:
        """Append a line."""
        self.add("line", x1=x1, y1=y1, x2=x2, y2=y2, **attributes)

    def text(self, x: float, y: float, text: object, **attributes: Any) -> None:
        """Append a text whose base line begins at a point, unless `text_anchor` says otherwise."""
        self.add("text", text, x=x, y=y, **attributes)

    def dots(self, points: list[tuple[float, float]], **attributes: Any) -> None:
        """Append round dots as one path, which the style sheet strokes with round ends."""
        self.add("path", d="".join(f"M{x:.1f} {y:.1f}h0" for x, y in points), **attributes)

    def polyline(self, points: list[tuple[float, float]], **attributes: Any) -> None:
        """Append a line through points."""
        self.add("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), fill="none", **attributes)

    def render(self) -> Markup:
        """Write the SVG element."""
        head = Markup('<svg viewBox="0 0 {:g} {:g}" role="{}" aria-label="{}" style="max-width:{:g}px">\n').format(
            self.width, self.height, self.role, self.title, 1.2 * self.width
        )
        return head + Markup("\n").join(self.parts) + Markup("\n</svg>")


def element(tag: str, text: object = "", title: str = "", **attributes: Any) -> Markup:
    """Write an element; in names of attributes `_` stands for `-`, and `class_` for `class`."""
    pairs = Markup("").join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), _number(value))
        for name, value in attributes.items()
        if value is not None
    )
    inside = Markup("<title>{}</title>").format(title) if title else Markup("")
    content = text if isinstance(text, Markup) else escape(str(text))
    return Markup("<") + tag + pairs + Markup(">") + inside + content + Markup(f"</{tag}>")


def _number(value: Any) -> Any:
    """Write a float with one decimal, which is finer than any screen, and leave anything else as it is."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


def text_width(text: str, size: float) -> float:
    """Estimate the width of a text at a font size."""
    return CHARACTER * size * len(text)


def shorten(text: str, characters: int) -> str:
    """Cut a text to so many characters, the last of which says that something is missing."""
    return text if len(text) <= characters else f"{text[: characters - 1]}…"
