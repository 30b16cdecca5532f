"""The page of what comparisons/results/peers.csv and peers_latency.csv hold, with the features of every peer.

    python -m comparisons.peers.report

Writes comparisons/results/peers.md.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from comparisons.peers.features import describe_features, describe_limits
from comparisons.peers.trials import OURS, TASKS, list_trials, read_list
from comparisons.peers.verdicts import describe_verdicts
from lightweight.core.files import write_text
from lightweight.execution.process import run_stage
from lightweight.reporting.table import accuracy_with_interval, markdown

FIGURES, TABLE = (Path("comparisons/results") / f"peers.{kind}" for kind in ("csv", "md"))
TIMES = Path("comparisons/results/peers_latency.csv")
COLUMNS = (
    "network", "task", "peer", "method", "error", "accuracy", "accuracy_low", "accuracy_high", "exact_accuracy",
    "images", "gained", "lost", "mcnemar_p", "only_ours", "only_theirs", "ours_p", "size_bytes", "original_bytes",
    "macs", "original_macs", "int8_mac_share", "runtime", "seconds", "cpu_seconds", "lines", "same_bytes",
    "calibration_images", "versions", "cpu", "load", "date",
)  # fmt: skip
QUIET = 0.5  # the load average up to which the machine was idle before


def report() -> None:
    """Write and print the page."""
    if FIGURES.exists():
        text = describe(pd.read_csv(FIGURES), pd.read_csv(TIMES) if TIMES.exists() else None, read_list())
        write_text(TABLE, text)
        print(text)


def describe(figures: pd.DataFrame, times: pd.DataFrame | None, peers: dict[str, Any]) -> str:
    """Describe the files of all networks and tasks, who is best at what and why, and the features of the peers."""
    parts = ["# Other tools beside this one\n", introduce(figures)]
    for network, own in figures.groupby("network", sort=False):
        parts.append(f"## {network}\n")
        for task, title in TASKS.items():
            made = own[(own["task"] == task) & own["error"].isna()]
            if len(made):
                timed = None if times is None else times[(times["network"] == network) & (times["task"] == task)]
                parts += [f"### {title}\n", markdown(compare(made, timed))]
                parts += [line + "\n" for line in describe_verdicts(made, timed, task, peers)]
    parts += ["## What did not work, and what is missing\n", describe_failures(figures), describe_limits(peers)]
    parts += ["## Features\n", describe_features(figures, peers), describe_versions(figures)]
    return "\n".join(parts)


def introduce(figures: pd.DataFrame) -> str:
    """Say what was measured on which images and machine, and what the columns mean."""
    images = figures.dropna(subset="images").groupby("network", sort=False)["images"].first().astype(int)
    scored = ", ".join(f"`{network}` on {number:,}" for network, number in images.items())
    busy = " Seconds are of a machine that did other work, too." if (figures["load"] > QUIET).any() else ""
    calibration = int(figures["calibration_images"].max())
    return (
        f"`make peers` gives every tool the same trained networks and the same {calibration} training images, each in "
        f"an environment of its own. Test images: {scored}. Measured on "
        f"{', '.join(figures['cpu'].unique())}, {figures['date'].min()} to {figures['date'].max()}.{busy}\n\n"
        "Accuracy has a 95 % Wilson interval; p is McNemar's exact test against the float32 network. *Uncut* is the "
        "accuracy by kernels of ONNX Runtime that cut off no sum of 8-bit products, as on a CPU with VNNI. "
        "*Beside ours* counts the images that only the tool gets right, and only ours, with p of the same test. "
        "*Lines* are those of code in its script in `comparisons/peers/scripts`; *same bytes* is whether a second run "
        "left the same file.\n"
    )


def compare(figures: pd.DataFrame, times: pd.DataFrame | None) -> pd.DataFrame:
    """Compare the files of a network for a task as text."""
    quantized, cut = figures["int8_mac_share"].fillna(0) > 0, figures["macs"] < figures["original_macs"]
    columns = {
        "tool": figures["peer"],
        "method": figures["method"],
        "test accuracy": figures.apply(accuracy_with_interval, axis=1),
        "p": figures["mcnemar_p"].map("{:.2g}".format),
        "uncut": figures["exact_accuracy"].map("{:.2%}".format).where(quantized, ""),
        "beside ours": [beside(row) for _, row in figures.iterrows()],
        "bytes": figures["size_bytes"].map("{:,.0f}".format),
        "of float32": (figures["size_bytes"] / figures["original_bytes"]).map("{:.3f}".format),
        "MACs left": (figures["macs"] / figures["original_macs"]).map("{:.1%}".format).where(cut, ""),
        "in int8": figures["int8_mac_share"].map("{:.0%}".format).where(quantized, ""),
        "runs in": figures["runtime"],
        "CPU s": figures["cpu_seconds"].map("{:.0f}".format),
        "s": figures["seconds"].map("{:.0f}".format),
        "lines": figures["lines"].map("{:.0f}".format),
        "same bytes": figures["same_bytes"],
    }
    if times is not None:
        for (runtime, batch), own in times.groupby(["runtime", "batch"], sort=False):
            ratios = {(row["peer"], row["method"]): speedup(row) for _, row in own.iterrows()}
            names = zip(figures["peer"], figures["method"], strict=True)
            columns[f"{runtime}, batch {batch}"] = [ratios.get(name, "") for name in names]
    table = pd.DataFrame(columns)
    return table.loc[:, [column for column in table if (table[column] != "").any()]]


def beside(row: pd.Series) -> str:
    """Say how a file compares with ours for the same task, image by image; nothing of our own."""
    if row["peer"] == OURS or pd.isna(row["ours_p"]):
        return ""
    return f"+{row['only_theirs']:.0f} -{row['only_ours']:.0f}, p {row['ours_p']:.2g}"


def speedup(row: pd.Series) -> str:
    """Say how many times as fast as float32 a file is, with its interval, or that it does not run."""
    if pd.isna(row["speedup"]):
        return "does not run"
    return f"{row['speedup']:.2f} [{row['speedup_low']:.2f}, {row['speedup_high']:.2f}]"


def describe_failures(figures: pd.DataFrame) -> str:
    """List the trials that left no file that runs, with the reason in the words of the tool."""
    failed = figures[figures["error"].notna()]
    if failed.empty:
        return f"All of the {len(figures)} files that were asked for were made, and run.\n"
    table = failed[["network", "peer", "method", "error"]].rename(columns={"peer": "tool", "error": "reason"})
    return markdown(table.astype(str).replace({r"\|": "/"}, regex=True))


def describe_versions(figures: pd.DataFrame) -> str:
    """List the versions of the packages that made the files, and the day."""
    known = figures.dropna(subset="versions").groupby("peer", sort=False)
    lines = [f"- {peer}: {own['versions'].iloc[-1]}, {own['date'].max()}" for peer, own in known]
    return "\n".join(["## Versions\n", *lines]) + "\n"


if __name__ == "__main__":
    list_trials()
    run_stage(report)
