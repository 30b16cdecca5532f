"""Plot: draw the pictures that compare original and optimized.

Reads   metrics/VARIANT.json, plots/{train,swa,prune,sparsity,sensitivity,predictions}.csv
Writes  plots/models.csv, plots/{comparison,training,sparsity,sensitivity,confusion}.png
"""

from pathlib import Path

from lightweight.core.files import read_csv, write_bytes, write_csv
from lightweight.execution.process import run_stage
from lightweight.reporting.plots import draw_comparison, draw_confusion, draw_sensitivity, draw_sparsity, draw_training
from lightweight.reporting.results import read_scores

METRICS = Path("metrics")
PLOTS = Path("plots")


def main() -> None:
    scores = read_scores(METRICS)
    names = ("train", "swa", "prune", "sparsity", "sensitivity", "predictions")
    train, swa, recovery, sparsity, sensitivity, predictions = (read_csv(PLOTS / f"{name}.csv") for name in names)
    pictures = {
        "comparison": draw_comparison(scores),
        "training": draw_training(train, swa, recovery),
        "sparsity": draw_sparsity(sparsity),
        "sensitivity": draw_sensitivity(sensitivity),
        "confusion": draw_confusion(predictions),
    }
    for name, picture in pictures.items():
        write_bytes(PLOTS / f"{name}.png", picture)
    rows = [{"model": name, **own} for name, own in scores.items()]
    write_csv(PLOTS / "models.csv", rows[0], rows)
    print(f"plot  {len(pictures)} pictures  -> {PLOTS}")


if __name__ == "__main__":
    run_stage(main)
