"""Evaluate: score every variant on the test split, by the same metrics; all choices were made on validation.

Reads   params.yaml, data/prepared.safetensors, models/VARIANT
Writes  metrics/VARIANT.json, plots/predictions.csv
"""

from pathlib import Path

from lightweight.core.files import write_csv, write_json
from lightweight.core.params import GENERAL, load_params
from lightweight.core.variants import VARIANTS
from lightweight.data.dataset_file import load_dataset
from lightweight.evaluation.scores import EvaluateParams, evaluate_variants, prediction_rows, score
from lightweight.execution.determinism import configure_torch
from lightweight.execution.launch import run_parallel_stage

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared.safetensors")
MODELS: dict[str, Path] = {name: Path(f"models/{name}.safetensors") for name in VARIANTS}
MODELS |= {"optimized": Path("models/optimized.onnx")}
METRICS = Path("metrics")
PREDICTIONS = Path("plots/predictions.csv")


def main() -> None:
    params = load_params(PARAMS, **GENERAL, evaluate=EvaluateParams)
    data = load_dataset(PREPARED).to(configure_torch(params))
    labels = data.test.labels.cpu().numpy()
    variants = evaluate_variants(MODELS, data, params.evaluate.batch_size, params.threads)
    for name, variant in variants.items():
        scores = score(variant, variants["original"], labels)
        write_json(METRICS / f"{name}.json", scores)
        print(f"evaluate  {name:<12}  test accuracy {scores['accuracy']:.2%}  {scores['size_bytes']:>12,} bytes")
    rows = prediction_rows(variants["optimized"].predictions, labels, data.classes)
    write_csv(PREDICTIONS, ["actual", "predicted"], rows)
    print(f"evaluate  {len(VARIANTS)} variants  -> {METRICS}")


if __name__ == "__main__":
    run_parallel_stage(main, PARAMS, print, PREPARED)
