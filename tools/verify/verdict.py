"""The verdict on two runs of one pipeline: identical, other bytes for a known reason, or not reproduced.

Compares what dvc.lock and the scores of either run say.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from lightweight.reporting.results import Scores

IDENTICAL, FAILED, ELSEWHERE = 0, 1, 3  # exit codes
EQUAL = ("images", "parameters", "macs")
CLOSE = ("size_bytes", "compressed_bytes", "nonzero_parameters", "int8_mac_share")
TOLERANCE = 0.01  # of CLOSE, relative
MADE_BY = ("cpu", "threads")  # what may change bytes

Lock = dict[str, dict[str, Any]]  # the stages of a dvc.lock
Origin = Mapping[str, Any]  # of an artifact, as reporting.provenance.describe_origin returns it
Record = Mapping[str, Origin]  # by the artifact's path, as in metrics/provenance.json


class Run(NamedTuple):
    """Hold what one run left: the stages of its lock, and the scores of its variants."""

    lock: Lock
    scores: Scores


class Output(NamedTuple):
    """Hold the state of one output of one stage: `identical`, `differs`, `not made` or `not in dvc.lock`."""

    stage: str
    path: str
    state: str


class Verdict(NamedTuple):
    """Hold an exit code, the verdict in words, and the lines of the table that it rests on."""

    code: int
    words: str
    lines: list[str]


def judge(committed: Run, ours: Run, record: Record, here: Origin, faults: list[str]) -> Verdict:
    """Judge a run that was made here against the committed one.

    `record` says where the committed artifacts were made, `here` describes this machine, and `faults` were found in
    what is committed before the run began.
    """
    record = {path: origin for path, origin in record.items() if here.keys() <= origin.keys()}
    outputs = compare(committed.lock, ours.lock)
    lines = [f"  {output.stage:<12} {output.path:<34} {output.state}" for output in outputs]
    differing = [output for output in outputs if output.state != "identical"]
    if outdated := find_outdated_stages(committed.lock, ours.lock):
        changed = f"dvc.lock is of another command, code or parameters in {', '.join(outdated)}: commit it anew"
        faults = [*faults, changed]
    faults = faults + [f"{output.path}: {output.state}" for output in differing if output.state != "differs"]
    if differing:
        faults = faults + explain_differences(outputs, committed.lock, record, here)
    for name, before in committed.scores.items():
        after = ours.scores.get(name)
        faults = faults + (find_contradictions(name, before, after) if after else [f"{name}: not scored"])
        if after and after != before:
            lines.append(f"  {name:<12} accuracy {format_accuracy(after)}, committed {format_accuracy(before)}")
    if faults:
        lines += [f"  fault: {fault}" for fault in faults]
        named = "1 fault is" if len(faults) == 1 else f"{len(faults)} faults are"
        words = f"NOT REPRODUCED: {len(differing)} of {len(outputs)} outputs differ, {named} named above"
        return Verdict(FAILED, words, lines)
    if not differing:
        return Verdict(IDENTICAL, f"IDENTICAL: all {len(outputs)} outputs, made anew byte for byte", lines)
    elsewhere = [origin for origin in record.values() if not _same_machine(origin, here)]
    changes = {change for origin in elsewhere for change in list_version_changes(origin, here)}
    lines += [f"  beside that, {change}" for change in sorted(changes)]
    makers = {f"{origin['cpu']} with {origin['threads']} threads" for origin in elsewhere}
    words = f"OTHER BYTES, SAME RESULTS: {len(differing)} of {len(outputs)} outputs differ on {here['cpu']} with "
    words += f"{here['threads']} threads from those of {' and '.join(sorted(makers))}, and the metrics agree"
    return Verdict(ELSEWHERE, words, lines)


def md5_of_outputs(stage: Mapping[str, Any]) -> dict[str, str]:
    """Map the path of each output of a stage of dvc.lock to its MD5."""
    return {out["path"]: out["md5"] for out in stage.get("outs", [])}


def compare(committed: Lock, ours: Lock) -> list[Output]:
    """Compare every output of either lock, stage by stage in the order of `committed`."""
    outputs = []
    for name in committed | ours:
        before, after = (md5_of_outputs(lock.get(name, {})) for lock in (committed, ours))
        for path in before | after:
            state = "not made" if path not in after else "not in dvc.lock" if path not in before else "differs"
            outputs.append(Output(name, path, "identical" if before.get(path) == after.get(path) else state))
    return outputs


def find_outdated_stages(committed: Lock, ours: Lock) -> list[str]:
    """Find the stages that the committed lock does not hold with this command, code and parameters."""
    made = {path for stage in ours.values() for path in md5_of_outputs(stage)}

    def definition(stage: Mapping[str, Any] | None) -> dict[str, Any] | None:
        if stage is None:
            return None
        given = {dep["path"]: dep["md5"] for dep in stage.get("deps", []) if dep["path"] not in made}
        return {"cmd": stage["cmd"], "params": stage.get("params"), "deps": given}

    return [name for name in committed | ours if definition(committed.get(name)) != definition(ours.get(name))]


def explain_differences(outputs: list[Output], committed: Lock, record: Record, here: Origin) -> list[str]:
    """Explain why other bytes are no matter of processor or threads: a line per output where differences begin.

    Differences begin in stages none of whose inputs differ. The list is empty where processor or threads explain all.
    """
    differing = {output.path for output in outputs if output.state != "identical"}
    reasons = []
    for name, stage in committed.items():
        made = md5_of_outputs(stage)
        if not differing & made.keys() or differing & {dep["path"] for dep in stage.get("deps", [])}:
            continue
        known = {path: record[path] for path, md5 in made.items() if record.get(path, {}).get("md5") == md5}
        if not known:
            reasons.append(f"{name}: metrics/provenance.json does not say where the committed outputs were made")
        for path in sorted(known.keys() & differing or known.keys()):
            if _same_machine(known[path], here):
                also = "; ".join(list_version_changes(known[path], here)) or "and the same versions"
                reasons.append(f"{path}: made on the same type of processor and thread count, {also}")
    return reasons


def list_version_changes(then: Origin, here: Origin) -> list[str]:
    """List Python and the packages whose versions are not those with which an artifact was made."""
    before, now = ({"python": origin["python"], **origin["versions"]} for origin in (then, here))
    return [f"{name} was {before.get(name)} and is {now[name]}" for name in now if before.get(name) != now[name]]


def find_contradictions(name: str, committed: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Find what in the scores of one model contradicts: intervals without overlap, other counts, other sizes."""
    faults = []
    if committed["accuracy_low"] > ours["accuracy_high"] or ours["accuracy_low"] > committed["accuracy_high"]:
        overlap = f"which the committed {format_accuracy(committed)} does not overlap"
        faults.append(f"{name}: accuracy {format_accuracy(ours)}, {overlap}")
    for key in EQUAL + CLOSE:
        allowed = TOLERANCE * abs(committed[key]) if key in CLOSE else 0
        if abs(ours[key] - committed[key]) > allowed:
            faults.append(f"{name}: {key} is {ours[key]:,}, committed is {committed[key]:,}")
    return faults


def format_accuracy(scores: Mapping[str, Any]) -> str:
    """Format accuracy and its interval as shares."""
    return f"{scores['accuracy']:.4f} [{scores['accuracy_low']:.4f}, {scores['accuracy_high']:.4f}]"


def _same_machine(origin: Origin, here: Origin) -> bool:
    """Tell whether an artifact was made on this type of processor with as many threads."""
    return all(origin[key] == here[key] for key in MADE_BY)
