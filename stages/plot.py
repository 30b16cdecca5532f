"""Plot: the pictures and the page that compare original and optimized.

Reads   metrics/VARIANT.json, plots/{images,coverage,train,swa,prune,sparsity,sensitivity,predictions}.csv
Writes  plots/models.csv, plots/{comparison,training,sparsity,sensitivity,confusion}.png, plots/report.html
"""

from pathlib import Path

from lightweight.command import run
from lightweight.files import read_csv, write_bytes, write_csv
from lightweight.page import read_metrics, write_page
from lightweight.plotting import draw_comparison, draw_confusion, draw_sensitivity, draw_sparsity, draw_training

METRICS = Path("metrics")
PLOTS = Path("plots")


def main() -> None:
    metrics, latency = read_metrics(METRICS)
    names = ("train", "swa", "prune", "sparsity", "sensitivity", "predictions")
    train, swa, recovery, sparsity, sensitivity, predictions = (read_csv(PLOTS / f"{name}.csv") for name in names)
    pictures = {
        "comparison": draw_comparison(metrics),
        "training": draw_training(train, swa, recovery),
        "sparsity": draw_sparsity(sparsity),
        "sensitivity": draw_sensitivity(sensitivity),
        "confusion": draw_confusion(predictions),
    }
    for name, picture in pictures.items():
        write_bytes(PLOTS / f"{name}.png", picture)
    rows = [{"model": name, **scores} for name, scores in metrics.items()]
    write_csv(PLOTS / "models.csv", rows[0], rows)
    write_page(PLOTS / "report.html", metrics, latency, PLOTS)
    print(f"plot  {len(pictures)} pictures  -> {PLOTS / 'report.html'}")


if __name__ == "__main__":
    run(main)
