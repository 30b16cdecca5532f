"""Evaluate: score every variant on the test split, by the same metrics; all choices were made on validation.

Reads   params.yaml, data/prepared.safetensors, models/VARIANT
Writes  metrics/original.json, metrics/optimized.json, plots/{models,predictions,layers}.csv
"""

from pathlib import Path

from lightweight.core.files import write_json, write_tables
from lightweight.core.params import GENERAL, load_params
from lightweight.core.variants import COMPACT, VARIANTS
from lightweight.data.dataset_file import load_dataset
from lightweight.evaluation.layers import LAYER_COLUMNS, layer_rows
from lightweight.evaluation.scores import COMPARED, SHOWN, EvaluateParams, evaluate_variants, prediction_rows, score_all
from lightweight.execution.determinism import configure_torch
from lightweight.execution.launch import run_parallel_stage

PARAMS, PREPARED = Path("params.yaml"), Path("data/prepared.safetensors")
MODELS: dict[str, Path] = {name: Path(f"models/{name}.safetensors") for name in VARIANTS}
MODELS |= {"optimized": Path("models/optimized.onnx"), COMPACT: Path("models/compact.lwz")}
METRICS, PLOTS = Path("metrics"), Path("plots")


def main() -> None:
    params = load_params(PARAMS, **GENERAL, evaluate=EvaluateParams)
    data = load_dataset(PREPARED).to(configure_torch(params))
    labels = data.test.labels.cpu().numpy()
    variants = evaluate_variants(MODELS, data, params.evaluate.batch_size, params.threads)
    scores = score_all(variants, labels, data.classes)
    for name, own in scores.items():
        print(f"evaluate  {name:<12}  test accuracy {own['accuracy']:.2%}  {own['size_bytes']:>12,} bytes")
    for name in COMPARED:
        write_json(METRICS / f"{name}.json", {key: scores[name][key] for key in SHOWN})
    predictions = prediction_rows(variants["optimized"], variants["original"], labels, data.classes)
    tables = {
        "models": (["model", *scores["original"]], [{"model": name, **own} for name, own in scores.items()]),
        "predictions": (predictions[0], predictions),
        "layers": (LAYER_COLUMNS, layer_rows(variants["original"].modules, variants["recalibrated"].modules)),
    }
    write_tables(PLOTS, tables)
    print(f"evaluate  {len(scores)} variants  -> {PLOTS / 'models.csv'}")


if __name__ == "__main__":
    run_parallel_stage(main, PARAMS, print, PREPARED)
