"""Write the generated tables of the READMEs anew, from the stored results of the recipes.

    python -m tools.readme

Reads   recipes/results/NAME.json, recipes/published.toml
Writes  README.md, recipes/README.md
"""

import re
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd

from lightweight.core.files import read_json, write_text
from lightweight.core.machine import hardware_description
from lightweight.execution.process import run_stage
from lightweight.reporting.summary import headline
from lightweight.reporting.table import comparison, markdown
from tools.recipe.recipe import FOLDER, RESULTS, timings
from tools.recipe.tables import accuracy_row, speed_rows

PUBLISHED = FOLDER / "published.toml"
READMES = (Path("README.md"), FOLDER / "README.md")
TABLE = re.compile(r"(<!-- (recipe [\w-]+|recipes|speeds) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    for path in READMES:
        write_text(path, TABLE.sub(lambda match: match[1] + generate(match[2]) + match[3], path.read_text()))


def generate(mark: str) -> str:
    """Write the Markdown between the mark, which is `recipe NAME`, `recipes` or `speeds`, and `end`."""
    tables = {"recipes": compare_recipes, "speeds": compare_speeds}
    return tables[mark]() if mark in tables else compare_variants(mark.removeprefix("recipe "))


def compare_variants(name: str) -> str:
    """Write the table and the sentences on the variants of `recipes/results/NAME.json` in Markdown."""
    stored = read_json(RESULTS / f"{name}.json")
    scores, latency = stored["metrics"], timings(stored).get(stored["params"]["threads"], {})
    sentences = "\n".join(headline(scores, latency))
    hardware = [f"on {hardware_description(latency['original'])}"] if latency else []
    day = [stored["latency"]["date"]] if "date" in stored.get("latency", {}) else []
    measured = f"Measured by `make recipe NAME={name}` {', '.join(hardware + day)}".rstrip()
    return f"{markdown(comparison(scores, latency))}\n{sentences}\n\n{measured}.\n"


def compare_recipes() -> str:
    """Write a row per recipe with published figures beside the measured ones, and the notes on what differs."""
    rows, notes = [], []
    for name, entry in tomllib.loads(PUBLISHED.read_text()).items():
        stored = read_results(name)
        row = {"recipe": link(name), "published": entry["figures"]}
        rows.append(row | (accuracy_row(stored) if stored else {}))
        if entry.get("note"):
            notes.append(f"- `{name}`: {entry['note']}")
    return "\n".join([markdown(pd.DataFrame(rows).fillna("")), *notes, ""])


def compare_speeds() -> str:
    """Write the rows of every recipe that compresses something: how fast its file is, by the number of threads."""
    rows = []
    for name in tomllib.loads(PUBLISHED.read_text()):
        if stored := read_results(name):
            rows += [{"recipe": link(name), **row} for row in speed_rows(stored)]
    return markdown(pd.DataFrame(rows).fillna("")) + "\n"


def read_results(name: str) -> dict[str, Any]:
    """Read the stored results of a recipe; nothing where it was not run."""
    path = RESULTS / f"{name}.json"
    return read_json(path) if path.exists() else {}


def link(name: str) -> str:
    """Link a recipe from the README beside it."""
    return f"[{name}]({name}.yaml)"


if __name__ == "__main__":
    run_stage(main)
