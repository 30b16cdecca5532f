"""Write the generated tables of the READMEs anew, from the stored metrics of the recipes.

    python -m tools.readme

Reads   recipes/results/NAME.json, recipes/published.toml
Writes  README.md, recipes/README.md
"""

import re
import tomllib
from pathlib import Path
from typing import Any

from lightweight.core.files import read_json, write_text
from lightweight.core.machine import hardware_description
from lightweight.core.process import run_stage
from lightweight.reporting.table import Metrics, accuracy, comparison, headline, markdown

FOLDER = Path("recipes")
RESULTS = FOLDER / "results"
PUBLISHED = FOLDER / "published.toml"
READMES = (Path("README.md"), FOLDER / "README.md")
TABLE = re.compile(r"(<!-- (recipe [\w-]+|recipes) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    for path in READMES:
        write_text(path, TABLE.sub(lambda found: found[1] + generated(found[2]) + found[3], path.read_text()))


def generated(what: str) -> str:
    """The Markdown between the marks `recipe NAME` or `recipes` and `end`."""
    return all_recipes() if what == "recipes" else recipe_table(what.removeprefix("recipe "))


def recipe_table(name: str) -> str:
    """The table and the verdict of `recipes/results/NAME.json`, in Markdown."""
    stored = read_json(RESULTS / f"{name}.json")
    text = tables(stored["metrics"], stored["latency"])
    return f"{text}\nMeasured by `make recipe NAME={name}` on {hardware_description(stored['latency']['original'])}.\n"


def all_recipes() -> str:
    """A row per recipe, published figures beside ours, and the notes on what differs."""
    published = tomllib.loads(PUBLISHED.read_text())
    head = ["recipe", "published", "original", "pruned", "optimized", "size (MB)", "not zero"]
    head += ["speedup at 1", "at 64", "s/epoch", "memory (GB)"]
    rows = [row(name, entry["figures"]) for name, entry in published.items()]
    notes = [f"- `{name}`: {entry['note']}" for name, entry in published.items() if entry.get("note")]
    return "\n".join([markdown([head, *rows]), *notes, ""])


def row(name: str, figures: str) -> list[str]:
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return [f"[{name}]({name}.yaml)", figures, *[""] * 9]
    stored = read_json(path)
    first, pruned, last = (stored["metrics"][variant] for variant in ("original", "recalibrated", "optimized"))
    return [
        f"[{name}]({name}.yaml)",
        figures,
        *(accuracy(scores) for scores in (first, pruned, last)),
        f"{megabytes(first)} → {megabytes(last)}",
        f"{first['nonzero_parameters']:,} → {last['nonzero_parameters']:,}",
        *(speedup(stored["latency"]["optimized"][batch]) for batch in ("batch_1", "batch_64")),
        *costs(stored["training"]),
    ]


def speedup(measured: dict[str, Any]) -> str:
    low, high = measured["speedup_low"], measured["speedup_high"]
    return f"{measured['speedup']:.1f} [{low:.1f}, {high:.1f}]"


def megabytes(scores: dict[str, Any]) -> str:
    return f"{scores['size_bytes'] / 1e6:#.3g}"


def costs(training: dict[str, Any] | None) -> list[str]:
    """Seconds per epoch and peak memory of the train stage, where they are known."""
    if training is None:
        return ["", ""]
    seconds, memory = training["seconds_per_epoch"], training["peak_gpu_memory_bytes"] or training["peak_memory_bytes"]
    return ["" if seconds is None else f"{seconds:.1f}", f"{memory / 1e9:.2f}"]


def tables(metrics: Metrics, latency: Metrics) -> str:
    return markdown(comparison(metrics, latency)) + "\n" + headline(metrics, latency) + "\n"


if __name__ == "__main__":
    run_stage(main)
