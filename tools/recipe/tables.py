"""Rows of the tables of recipes: accuracies by equal and unequal training, and speeds in the same runtime first."""

from collections.abc import Iterator, Mapping
from typing import Any

from lightweight.core.machine import hardware_description
from lightweight.reporting.results import batch_sizes
from lightweight.reporting.table import accuracy_with_interval
from tools.recipe.recipe import compresses, timings

Row = dict[str, str]
RIVALS = {"its export": "against_exported", "PyTorch": ""}  # of the optimized file, and keys of what was measured
WORDS = {"slower": ": slower", "no difference": ": no faster"}


def accuracy_row(stored: Mapping[str, Any]) -> Row:
    """Summarize accuracies, what each was trained for, and costs; empty where results are of an earlier version."""
    original, pruned, optimized = (stored["metrics"][variant] for variant in ("original", "recalibrated", "optimized"))
    budget, training = stored.get("budget"), stored.get("training")
    return {
        "original": accuracy_with_interval(original),
        "trained": describe_original(budget) if budget else "",
        "pruned": accuracy_with_interval(pruned),
        "optimized": f"{accuracy_with_interval(optimized)}, p = {optimized['mcnemar_p']:.2g}",
        "trained on top": describe_fine_tuning(budget) if budget else "",
        "control": describe_control(stored),
        "smallest file": describe_compact(stored),
        "seeds": describe_seeds(stored["seeds"]) if "seeds" in stored else "one seed",
        "size (MB)": f"{original['size_bytes'] / 1e6:#.3g} → {optimized['size_bytes'] / 1e6:#.3g}",
        "not zero": f"{original['nonzero_parameters']:,} → {optimized['nonzero_parameters']:,}",
        **(describe_costs(training) if training else {}),
    }


def speed_rows(stored: Mapping[str, Any]) -> Iterator[Row]:
    """Summarize how many times faster the optimized file runs, a row per number of threads; none without compression.

    A rival that was not timed leaves its cell empty, and so does the date in results of an earlier version.
    """
    if not compresses(stored["params"]):
        return
    for threads, latency in timings(stored).items():
        row = {"threads": str(threads)}
        for rival, key in RIVALS.items():
            for batch in batch_sizes(latency):
                measured = latency["optimized"][batch]
                measured = measured.get(key) if key else measured
                row[f"against {rival}, {batch.replace('_', ' ')}"] = describe_speedup(measured) if measured else ""
        hardware = hardware_description(latency["original"]).rpartition(", ")[0]
        yield row | {"measured": ", ".join(filter(None, [stored["latency"].get("date"), hardware]))}


def describe_speedup(measured: Mapping[str, Any]) -> str:
    """Describe a speedup with its 95 % interval, and in words that there is none or that it is not precise."""
    interval = f"[{measured['speedup_low']:.2f}, {measured['speedup_high']:.2f}]"
    doubt = "" if measured.get("precise", True) else ", not precise"
    return f"{measured['speedup']:.2f} {interval}{WORDS.get(measured['verdict'], '')}{doubt}"


def describe_original(budget: Mapping[str, Any]) -> str:
    """Describe what the original was trained for."""
    start = f"from {budget['original_weights']}" if budget["original_weights"] else ""
    own = describe_epochs(budget["original_epochs"], budget)
    return ", ".join(filter(None, [start, own, describe_teacher(budget["original_teacher"])]))


def describe_fine_tuning(budget: Mapping[str, Any]) -> str:
    """Describe what the optimized file was trained for beyond its original."""
    averaging, parts = budget["averaging_epochs"], []
    if averaging:
        parts.append(f"{averaging} epochs of averaging in place of the last")
    if budget["fine_tuning_epochs"]:
        parts.append(describe_epochs(budget["fine_tuning_epochs"], budget))
    return ", ".join(filter(None, [" and ".join(parts) or "nothing", describe_teacher(budget["fine_tuning_teacher"])]))


def describe_epochs(epochs: int, budget: Mapping[str, Any]) -> str:
    """Describe a number of epochs, and how many steps these are."""
    return f"{epochs} epoch{'' if epochs == 1 else 's'}, {epochs * budget['steps_per_epoch']:,} steps"


def describe_teacher(teacher: str | None) -> str:
    """Name a teacher, if there is one."""
    return f"teacher: {teacher}" if teacher else ""


def describe_control(stored: Mapping[str, Any]) -> str:
    """Describe the control, and by how much the optimized file differs from it; nothing where budgets are equal."""
    if "control" not in stored:
        return "not run" if stored.get("budget", {}).get("fine_tuning_epochs") else ""
    control, paired = stored["control"]["metrics"], stored["control"]["optimized"]
    points = 100 * (paired["gained"] - paired["lost"]) / control["images"]
    return f"{accuracy_with_interval(control)}, optimized {signed(points)} points, p = {paired['mcnemar_p']:.2g}"


def describe_seeds(seeds: Mapping[str, Any]) -> str:
    """Describe mean ± standard deviation over seeds, the paired difference and the worst seed."""
    summary = seeds["summary"]
    original, optimized, difference = (summary[key] for key in ("original", "optimized", "difference"))
    means = " → ".join(f"{100 * model['mean']:.2f} ± {100 * model['sd']:.2f}" for model in (original, optimized))
    change = f"{signed(100 * difference['mean'])} ± {100 * difference['sd']:.2f} points, p = {difference['p']:.2g}"
    return f"{len(seeds['runs'])} seeds: {means} %, {change}, worst {100 * optimized['worst']:.2f} %"


def describe_compact(stored: Mapping[str, Any]) -> str:
    """Describe the compact file, where there is one: bytes, accuracy, and how often its training saw the images."""
    if not (compact := stored["metrics"].get("compact")):
        return ""
    section, text = stored["params"]["compact"], f"{compact['size_bytes']:,} bytes, {accuracy_with_interval(compact)}"
    if found := stored.get("seeds", {}).get("summary", {}).get("compact"):
        accuracies = f"{100 * found['mean']:.2f} ± {100 * found['sd']:.2f} %, worst {100 * found['worst']:.2f}"
        text = f"{found['bytes']:,.0f} bytes, at most {found['most']:,}: {accuracies}, best {100 * found['best']:.2f} %"
    teacher = ", teacher: its original" if section["distill"] else ""
    trained = f"{section['epochs']} epochs{teacher}" if section["method"] == "trained" else "not trained"
    return f"{text}; {trained}"


def describe_costs(training: Mapping[str, Any]) -> Row:
    """Describe seconds per epoch and peak memory of the train stage."""
    seconds, memory = training["seconds_per_epoch"], training["peak_gpu_memory_bytes"] or training["peak_memory_bytes"]
    return {"s/epoch": "" if seconds is None else f"{seconds:.1f}", "memory (GB)": f"{memory / 1e9:.2f}"}


def signed(points: float) -> str:
    """Format points with a sign, and none where they round to nothing."""
    text = f"{points:+.2f}"
    return text if text[1:] != "0.00" else "0.00"
