"""Findings: what was skipped or changed while the images of a folder were read, and how it is told."""

from typing import Any

FINDING_COLUMNS = ("finding", "images", "paths")
SKIPPED = "skipped: "  # begins the findings about what is not in the data set
MAX_PATH_CHARACTERS = 200  # of paths in a line of the log; the file has all
MAX_PATHS = 10  # in a finding about images that were changed; one about skipped images has all


class Findings:
    """Record which images of a folder were skipped or converted, and how."""

    def __init__(self) -> None:
        self.images_by_finding: dict[str, list[str]] = {}

    def add(self, finding: str, image: str) -> None:
        """Add an image, by its path in the folder, to a finding such as `resized to 32x32`."""
        name = image if image.isprintable() else repr(image)[1:-1]  # a file name is any bytes
        self.images_by_finding.setdefault(finding, []).append(name)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per finding in alphabetical order: the finding, the number of images, and their paths.

        The paths are all of those that were skipped, and the first ten of those that were changed.
        """
        rows = []
        for finding, names in sorted(self.images_by_finding.items()):
            shown = names if finding.startswith(SKIPPED) else names[:MAX_PATHS]
            more = "; ..." if len(shown) < len(names) else ""
            rows.append({"finding": finding, "images": len(names), "paths": "; ".join(shown) + more})
        return rows


def describe_findings(rows: list[dict[str, Any]]) -> list[str]:
    """Describe each row of `Findings` in a line for the log, with the first of its paths."""
    lines = []
    for row in rows:
        paths, finding = row["paths"], row["finding"]
        shown = paths if len(paths) <= MAX_PATH_CHARACTERS else f"{paths[:MAX_PATH_CHARACTERS]}..."
        noun = "" if finding.startswith(SKIPPED) else "image " if row["images"] == 1 else "images "
        lines.append(f"prepare  {row['images']:,} {noun}{finding}: {shown}")
    return lines
