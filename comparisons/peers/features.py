"""The features of every peer, and what each could not do: from peers.toml, and from what its scripts did here."""

from typing import Any

import pandas as pd

from lightweight.reporting.table import markdown

FEATURES = {
    "interval": "interval of accuracy",
    "size": "bytes of the file itself",
    "paired": "paired test",
    "resumable": "goes on after a kill",
    "structured": "removes channels",
    "unstructured": "masks weights",
    "qat": "trains with rounding",
    "int4": "4 bits",
    "layers": "evidence by layer",
    "lock": "lock file of results",
}
SAME = "same bytes twice"


def describe_features(figures: pd.DataFrame, peers: dict[str, Any]) -> str:
    """Describe the features of all peers in a table, and what each cell rests on below it."""
    rows, notes = [], []
    for peer in peers["peer"]:
        cells, evidence = {}, peer.get("evidence", {})
        for key, title in FEATURES.items():
            cells[title] = peer.get("features", {}).get(key, "")
        own = figures[(figures["peer"] == peer["name"]) & figures["same_bytes"].notna()]["same_bytes"]
        cells[SAME] = describe_same(own)
        rows.append({"tool": peer["name"]} | cells | {key: peer.get(key, "") for key in ("released", "licence")})
        if evidence:
            notes.append(f"- {peer['name']}: {evidence}")
    table = markdown(pd.DataFrame(rows).astype(str)) + describe_unmeasured(figures, peers)
    return table + "\nWhat the cells rest on:\n\n" + "\n".join(notes) + "\n"


def describe_unmeasured(figures: pd.DataFrame, peers: dict[str, Any]) -> str:
    """Name the tools that left no file here; what is said of them comes from their packages and documentation alone."""
    names = [peer["name"] for peer in peers["peer"] if peer["name"] not in set(figures["peer"])]
    if not names:
        return ""
    told = "what this page says of them comes from their packages and documentation"
    return f"\nNot measured here yet: {', '.join(names)}; {told}.\n"


def describe_same(answers: pd.Series) -> str:
    """Say of how many files two runs left the same bytes."""
    if answers.empty:
        return ""
    same = int((answers == "yes").sum())
    return {len(answers): "yes", 0: "no"}.get(same, f"{same} of {len(answers)}")


def describe_limits(peers: dict[str, Any]) -> str:
    """List what the peers could not do with these networks, a line each."""
    lines = [f"- {peer['name']}: {text}" for peer in peers["peer"] for text in peer.get("could_not", [])]
    return "\n".join(lines) + "\n" if lines else ""
