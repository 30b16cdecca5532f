"""The table of what comparisons/results/networks.csv holds.

python -m comparisons.networks_report
"""

from pathlib import Path

import pandas as pd

from lightweight.core.files import write_text
from lightweight.execution.process import run_stage
from lightweight.reporting.table import markdown

TABLE, FIGURES = (Path("comparisons/results") / f"networks.{kind}" for kind in ("md", "csv"))
GOAL, MAX_SECONDS, MAX_TEXT = 0.35, 10, 160


def report() -> None:
    """Write and print the table."""
    text = describe(pd.read_csv(FIGURES, dtype=str, keep_default_na=False))
    write_text(TABLE, text)
    print(text)


def describe(figures: pd.DataFrame) -> str:
    """Count what works in lines, and list every network in a table in Markdown."""
    figures = figures[figures["left"] != ""].sort_values("network")
    left, rival = (pd.to_numeric(figures[name], errors="coerce") for name in ("left", "torch_pruning"))
    seconds = pd.to_numeric(figures["planning_s"], errors="coerce")
    both = left.notna() & rival.notna()
    more = left[both] > rival[both] + 0.01
    lines = [
        f"{len(figures)} networks, amount 0.5 of every group of channels; random weights, CPU seconds of planning.",
        f"Pruned: {left.notna().sum()}; at most {GOAL} of the MACs are left of {(left <= GOAL).sum()}.",
        f"Reloaded bitwise in another process: {(figures['reloads'] == 'True').sum()}.",
        f"Planned in under {MAX_SECONDS} seconds: {(seconds < MAX_SECONDS).sum()}; at most {seconds.max():.1f}.",
    ]
    if not (figures["torch_pruning"] != "").any():
        lines.append("torch-pruning has not been run on these yet.")
    elif both.any():
        endless = (figures["torch_pruning"] == "hang").sum()
        means = f"{left[both].mean():.3f} by ours and {rival[both].mean():.3f} by torch-pruning on average"
        lines += [
            f"torch-pruning: {rival.notna().sum()} pruned, {endless} without an end.",
            f"Where both work: {means}; ours leaves over a point more on {more.sum()}.",
        ]
    table = pd.DataFrame(
        {
            "network": figures["network"],
            "pixels": figures["image_size"],
            "MACs left": figures["left"].map(_shorten),
            "torch-pruning": figures["torch_pruning"].map(_shorten),
            "planning (s)": figures["planning_s"],
            "static: in int8": figures["static_coverage"].map(_shorten),
            "static: logit error": figures["static_logit_error"],
            "qat: in int8": figures["qat_coverage"].map(_shorten),
            "qat: logit error": figures["qat_logit_error"],
            "spared": figures["spared"].map(_shorten),
        }
    )
    return "\n".join(lines).replace("\n", "\n\n") + f"\n\n{markdown(table)}\n"


def _shorten(text: str) -> str:
    clean = text.replace("|", "/")
    return clean if len(clean) <= MAX_TEXT else f"{clean[:MAX_TEXT]} ..."


if __name__ == "__main__":
    run_stage(report)
