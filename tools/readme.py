"""Write the generated tables of the READMEs anew, from the stored metrics of the recipes.

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
from lightweight.reporting.table import accuracy_with_interval, comparison, markdown

FOLDER = Path("recipes")
RESULTS = FOLDER / "results"
PUBLISHED = FOLDER / "published.toml"
READMES = (Path("README.md"), FOLDER / "README.md")
TABLE = re.compile(r"(<!-- (recipe [\w-]+|recipes) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    for path in READMES:
        write_text(path, TABLE.sub(lambda match: match[1] + generate(match[2]) + match[3], path.read_text()))


def generate(mark: str) -> str:
    """Write the Markdown between the mark, which is `recipe NAME` or `recipes`, and `end`."""
    return compare_recipes() if mark == "recipes" else compare_variants(mark.removeprefix("recipe "))


def compare_variants(name: str) -> str:
    """Write the table and the sentences on the variants of `recipes/results/NAME.json` in Markdown."""
    stored = read_json(RESULTS / f"{name}.json")
    scores, latency = stored["metrics"], stored["latency"]
    sentences = "\n".join(headline(scores, latency))
    measured = f"Measured by `make recipe NAME={name}` on {hardware_description(latency['original'])}."
    return f"{markdown(comparison(scores, latency))}\n{sentences}\n\n{measured}\n"


def compare_recipes() -> str:
    """Write a row per recipe with published figures beside the measured ones, and the notes on what differs."""
    published = tomllib.loads(PUBLISHED.read_text())
    table = pd.DataFrame([summarize_recipe(name, entry["figures"]) for name, entry in published.items()]).fillna("")
    notes = [f"- `{name}`: {entry['note']}" for name, entry in published.items() if entry.get("note")]
    return "\n".join([markdown(table), *notes, ""])


def summarize_recipe(name: str, published: str) -> dict[str, str]:
    """Summarize the stored metrics of a recipe, by column of the table; only its name where nothing is stored."""
    row = {"recipe": f"[{name}]({name}.yaml)", "published": published}
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return row
    stored = read_json(path)
    original, pruned, optimized = (stored["metrics"][variant] for variant in ("original", "recalibrated", "optimized"))
    return row | {
        "original": accuracy_with_interval(original),
        "pruned": accuracy_with_interval(pruned),
        "optimized": accuracy_with_interval(optimized),
        "size (MB)": f"{original['size_bytes'] / 1e6:#.3g} → {optimized['size_bytes'] / 1e6:#.3g}",
        "not zero": f"{original['nonzero_parameters']:,} → {optimized['nonzero_parameters']:,}",
        "speedup at 1": format_speedup(stored["latency"]["optimized"]["batch_1"]),
        "at 64": format_speedup(stored["latency"]["optimized"]["batch_64"]),
        **format_costs(stored["training"]),
    }


def format_speedup(measured: dict[str, Any]) -> str:
    """Format the speedup over the original in PyTorch, with its 95 % interval."""
    low, high = measured["speedup_low"], measured["speedup_high"]
    return f"{measured['speedup']:.1f} [{low:.1f}, {high:.1f}]"


def format_costs(training: dict[str, Any] | None) -> dict[str, str]:
    """Format seconds per epoch and peak memory of the train stage; empty where nobody knows them."""
    if training is None:
        return {"s/epoch": "", "memory (GB)": ""}
    seconds, memory = training["seconds_per_epoch"], training["peak_gpu_memory_bytes"] or training["peak_memory_bytes"]
    return {"s/epoch": "" if seconds is None else f"{seconds:.1f}", "memory (GB)": f"{memory / 1e9:.2f}"}


if __name__ == "__main__":
    run_stage(main)
