"""The page of what comparisons/results/peers.csv and peers_latency.csv hold, with the features of every peer.

    python -m comparisons.peers.report

Writes comparisons/results/peers.md.
"""

from pathlib import Path

FIGURES, TABLE = (Path("comparisons/results") / f"peers.{kind}" for kind in ("csv", "md"))
COLUMNS = (
    "network", "task", "peer", "method", "error", "accuracy", "accuracy_low", "accuracy_high", "exact_accuracy",
    "images", "gained", "lost", "mcnemar_p", "only_ours", "only_theirs", "ours_p", "size_bytes", "macs",
    "int8_mac_share", "runtime", "seconds", "cpu_seconds", "lines", "same_bytes", "versions", "cpu", "load", "date",
)  # fmt: skip


def report() -> None:
    """Write and print the page."""
