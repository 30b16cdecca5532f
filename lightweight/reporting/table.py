"""The table that compares all variants in the same columns, for Markdown, the page and the terminal."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from lightweight.core.variants import in_order
from lightweight.reporting.results import Latency, Scores, batch_sizes


def comparison(scores: Scores, latency: Latency) -> pd.DataFrame:
    """Compare the variants, one row each, as text; milliseconds only of the models in `latency`."""
    values = pd.DataFrame.from_dict(scores, orient="index").loc[in_order(scores)]
    table = pd.DataFrame(
        {
            "model": values.index,
            "test accuracy": values.apply(accuracy_with_interval, axis=1),
            "size (MB)": values["size_bytes"].div(1e6).map("{:.2f}".format),
            "zipped (MB)": values["compressed_bytes"].div(1e6).map("{:.2f}".format),
            "parameters": values["parameters"].map("{:,}".format),
            "not zero": values["nonzero_parameters"].map("{:,}".format),
            "MACs": values["macs"].div(1e6).map("{:.2f} M".format),
            "in int8": values["int8_mac_share"].map("{:.0%}".format),
        }
    )
    for batch in batch_sizes(latency):
        milliseconds = {model: f"{measured[batch]['latency_ms']:.2f}" for model, measured in latency.items()}
        table[f"{batch.replace('_', ' ')} (ms)"] = table["model"].map(milliseconds).fillna("")
    return table


def accuracy_with_interval(scores: Mapping[str, Any]) -> str:
    """Format the accuracy of a variant in percent, with its 95 % interval."""
    return f"{scores['accuracy']:.2%} [{100 * scores['accuracy_low']:.2f}, {100 * scores['accuracy_high']:.2f}]"


def speedup_with_interval(ratio: Mapping[str, Any]) -> str:
    """Format a measured speedup with its 95 % interval, and that it is not precise where it is not."""
    doubt = "" if ratio["precise"] else ", not precise"
    return f"{ratio['speedup']:.2f} [{ratio['speedup_low']:.2f}, {ratio['speedup_high']:.2f}]{doubt}"


def markdown(table: pd.DataFrame) -> str:
    """Write a table of text as Markdown, the first column to the left and the others to the right."""
    alignment = ["left", *["right"] * (len(table.columns) - 1)]
    return table.to_markdown(index=False, colalign=alignment, disable_numparse=True) + "\n"


def plain_text(table: pd.DataFrame) -> str:
    """Write `comparison` for a terminal, narrower than Markdown: units stand in the cells, not in the headings."""
    columns = {}
    for heading, cells in table.items():
        name, _, unit = str(heading).removesuffix(")").partition(" (")
        columns[name.removeprefix("in ")] = cells.where(cells == "", cells + f" {unit}") if unit else cells
    lines = pd.DataFrame(columns).set_index("model").rename_axis(None).to_string().splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines)
