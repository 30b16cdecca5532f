"""Plot: draw the pictures that compare original and optimized.

Reads   plots/{models,train,swa,prune,sparsity,sensitivity,predictions}.csv
Writes  plots/{comparison,training,sparsity,sensitivity,confusion}.png
"""

from pathlib import Path

from lightweight.core.files import read_csv, write_bytes
from lightweight.execution.process import run_stage
from lightweight.reporting.plots import draw_comparison, draw_confusion, draw_sensitivity, draw_sparsity, draw_training
from lightweight.reporting.results import read_scores

PLOTS = Path("plots")


def main() -> None:
    scores = read_scores(PLOTS / "models.csv")
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
    print(f"plot  {len(pictures)} pictures  -> {PLOTS}")


if __name__ == "__main__":
    run_stage(main)
