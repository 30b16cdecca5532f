"""Two runs of one pipeline, as dvc.lock and metrics tell of them: identical, other bytes for a known reason, or not."""

from typing import Any, NamedTuple

IDENTICAL, FAILED, ELSEWHERE = 0, 1, 3  # exit codes
EQUAL = ("images", "parameters", "macs")
CLOSE = ("size_bytes", "compressed_bytes", "nonzero_parameters", "int8_mac_share")
TOLERANCE = 0.01  # of CLOSE, relative
MADE_BY = ("cpu", "threads")  # what may change bytes

Lock = dict[str, dict[str, Any]]  # the stages of a dvc.lock
Content = dict[str, Any]


class Run(NamedTuple):
    """What one run left: the stages of its lock, and its metrics by path."""

    lock: Lock
    metrics: dict[str, Content]


class Row(NamedTuple):
    """One output of one stage."""

    stage: str
    path: str
    state: str


class Judged(NamedTuple):
    """An exit code, the verdict in words, and the lines of the table that it rests on."""

    code: int
    words: str
    lines: list[str]


def judge(committed: Run, ours: Run, record: Content, here: Content, faults: list[str]) -> Judged:
    """Compare a run with the committed one; `faults` were found in what is committed before it began."""
    record = {path: entry for path, entry in record.items() if here.keys() <= entry.keys()}
    rows = compare(committed.lock, ours.lock)
    lines = [f"  {row.stage:<12} {row.path:<34} {row.state}" for row in rows]
    differ = [row for row in rows if row.state != "identical"]
    if stale := outdated(committed.lock, ours.lock):
        faults = [*faults, f"dvc.lock is of another command, code or parameters in {', '.join(stale)}: commit it anew"]
    faults = faults + [f"{row.path}: {row.state}" for row in differ if row.state != "differs"]
    if differ:
        faults = faults + unexplained(rows, committed.lock, record, here)
    for path, before in committed.metrics.items():
        after = ours.metrics.get(path)
        faults = faults + (apart(path, before, after) if after else [f"{path}: not made"])
        if after and after != before:
            lines.append(f"  {path:<26} accuracy {interval(after)}, committed {interval(before)}")
    if faults:
        lines += [f"  fault: {fault}" for fault in faults]
        named = "1 fault is" if len(faults) == 1 else f"{len(faults)} faults are"
        words = f"NOT REPRODUCED: {len(differ)} of {len(rows)} outputs differ, {named} named above"
        return Judged(FAILED, words, lines)
    if not differ:
        return Judged(IDENTICAL, f"IDENTICAL: all {len(rows)} outputs, made anew byte for byte", lines)
    elsewhere = [entry for entry in record.values() if not _here(entry, here)]
    lines += [
        f"  beside that, {text}" for text in sorted({t for entry in elsewhere for t in other_versions(entry, here)})
    ]
    made = {f"{entry['cpu']} with {entry['threads']} threads" for entry in elsewhere}
    words = f"OTHER BYTES, SAME RESULTS: {len(differ)} of {len(rows)} outputs differ on {here['cpu']} with "
    words += f"{here['threads']} threads from those of {' and '.join(sorted(made))}, and the metrics agree"
    return Judged(ELSEWHERE, words, lines)


def outs(stage: Content) -> dict[str, str]:
    """MD5 by path."""
    return {out["path"]: out["md5"] for out in stage.get("outs", [])}


def compare(committed: Lock, ours: Lock) -> list[Row]:
    """A row per output of either lock, stage by stage in the order of `committed`."""
    rows = []
    for name in committed | ours:
        before, after = outs(committed.get(name, {})), outs(ours.get(name, {}))
        for path in before | after:
            state = "not made" if path not in after else "not in dvc.lock" if path not in before else "differs"
            rows.append(Row(name, path, "identical" if before.get(path) == after.get(path) else state))
    return rows


def outdated(committed: Lock, ours: Lock) -> list[str]:
    """The stages that the committed lock does not know by this command, code and parameters."""
    made = {path for stage in ours.values() for path in outs(stage)}

    def cause(stage: Content | None) -> Content | None:
        if stage is None:
            return None
        given = {dep["path"]: dep["md5"] for dep in stage.get("deps", []) if dep["path"] not in made}
        return {"cmd": stage["cmd"], "params": stage.get("params"), "deps": given}

    return [name for name in committed | ours if cause(committed.get(name)) != cause(ours.get(name))]


def unexplained(rows: list[Row], committed: Lock, record: Content, here: Content) -> list[str]:
    """Why other bytes are no matter of processor or threads: a line per output where differences begin.

    They begin in stages none of whose inputs differ; `record` says who made the bytes that the committed lock names.
    """
    differing = {row.path for row in rows if row.state != "identical"}
    reasons = []
    for name, stage in committed.items():
        found = outs(stage)
        if not differing & found.keys() or differing & {dep["path"] for dep in stage.get("deps", [])}:
            continue
        known = {path: record[path] for path, md5 in found.items() if record.get(path, {}).get("md5") == md5}
        if not known:
            reasons.append(f"{name}: metrics/provenance.json does not say where the committed outputs were made")
        for path in sorted(known.keys() & differing or known.keys()):
            if _here(known[path], here):
                also = "; ".join(other_versions(known[path], here)) or "and the same versions"
                reasons.append(f"{path}: made on the same type of processor and thread count, {also}")
    return reasons


def _here(entry: Content, here: Content) -> bool:
    return all(entry[key] == here[key] for key in MADE_BY)


def other_versions(then: Content, here: Content) -> list[str]:
    """Python and the packages that are not what they were when an artifact was made."""
    before, now = ({"python": entry["python"], **entry["versions"]} for entry in (then, here))
    return [f"{name} was {before.get(name)} and is {now[name]}" for name in now if before.get(name) != now[name]]


def apart(name: str, committed: Content, ours: Content) -> list[str]:
    """How one model's metrics contradict each other: intervals without overlap, other counts, other sizes."""
    faults = []
    if committed["accuracy_low"] > ours["accuracy_high"] or ours["accuracy_low"] > committed["accuracy_high"]:
        faults.append(f"{name}: accuracy {interval(ours)}, which the committed {interval(committed)} does not overlap")
    for key in EQUAL + CLOSE:
        allowed = TOLERANCE * abs(committed[key]) if key in CLOSE else 0
        if abs(ours[key] - committed[key]) > allowed:
            faults.append(f"{name}: {key} is {ours[key]:,}, committed is {committed[key]:,}")
    return faults


def interval(scores: Content) -> str:
    return f"{scores['accuracy']:.4f} [{scores['accuracy_low']:.4f}, {scores['accuracy_high']:.4f}]"
