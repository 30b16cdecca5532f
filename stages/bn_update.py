"""BN update: re-estimate the BatchNorm statistics of the pruned model, and change nothing else.

Reads   params.yaml, data/prepared.safetensors, models/pruned.safetensors
Writes  models/recalibrated.safetensors, plots/bn_update.csv
"""

from pathlib import Path

from lightweight.batchnorm import BnUpdateParams, reestimate_batchnorm
from lightweight.core.files import write_csv
from lightweight.core.params import GENERAL, load_params
from lightweight.data.augmentation import AugmentSection
from lightweight.data.dataset_file import load_dataset
from lightweight.execution.determinism import configure_torch
from lightweight.execution.launch import run_parallel_stage
from lightweight.networks.model_file import load_model, save_model
from lightweight.networks.validation import validate

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared.safetensors")
PRUNED = Path("models/pruned.safetensors")
RECALIBRATED = Path("models/recalibrated.safetensors")
ACCURACY = Path("plots/bn_update.csv")


def main() -> None:
    params = load_params(PARAMS, **GENERAL, train=AugmentSection, bn_update=BnUpdateParams)
    data = load_dataset(PREPARED).to(configure_torch(params))
    pruned = load_model(PRUNED, data)
    model = pruned.model
    _, before = validate(model, data, data.val)
    number, size = params.bn_update.num_images, params.bn_update.batch_size
    reestimate_batchnorm(model, data, number, size, params.seed, params.train.augment)
    _, after = validate(model, data, data.val)
    save_model(RECALIBRATED, pruned)
    rows = [{"statistics": "before", "val_accuracy": before}, {"statistics": "after", "val_accuracy": after}]
    write_csv(ACCURACY, rows[0], rows)
    print(f"bn_update  val accuracy {before:.2%} before, {after:.2%} after  -> {RECALIBRATED}")


if __name__ == "__main__":
    run_parallel_stage(main, PARAMS, print, PREPARED)
