"""Print the comparison of the workspace, or write the tables of README.md from the recipes' metrics (--readme).

Reads   metrics/, recipes/NAME.json
Writes  README.md
"""

import re
import sys
from pathlib import Path

from lightweight.command import run
from lightweight.files import read_json, write_text
from lightweight.page import read_metrics
from lightweight.report import Metrics, comparison, markdown, verdict

README = Path("README.md")
TABLE = re.compile(r"(<!-- recipe (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    if sys.argv[1:] == ["--readme"]:
        text = README.read_text()
        write_text(README, TABLE.sub(lambda found: found[1] + recipe_table(found[2]) + found[3], text))
    else:
        metrics, latency = read_metrics(Path("metrics"))
        print(tables(metrics, latency))
        print(f"Latency on {where(latency)}; `dvc repro -fs benchmark` measures it here and now.")


def recipe_table(name: str) -> str:
    """The table and the verdict of `recipes/NAME.json`, in Markdown."""
    stored = read_json(Path(f"recipes/{name}.json"))
    text = tables(stored["metrics"], stored["latency"])
    return f"{text}\nMeasured by `make recipe NAME={name}` on {where(stored['latency'])}.\n"


def where(latency: Metrics) -> str:
    return f"{latency['original']['cpu']}, {latency['original']['threads']} threads"


def tables(metrics: Metrics, latency: Metrics) -> str:
    return markdown(comparison(metrics, latency)) + "\n" + verdict(metrics, latency) + "\n"


if __name__ == "__main__":
    run(main)
