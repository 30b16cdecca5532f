"""Measure what each layer does to the logits of the quantized file: which one to name in `quantize.exclude`.

    python -m tools.layers [IMAGES]

Takes params.yaml and models/recalibrated.safetensors, for the methods dynamic, static and int4. Compares the logits of
IMAGES training images, 256 by default, that are not used for calibration. Writes plots/layer_errors.csv, which belongs
to no stage: for L layers it makes 4 L files, so that `dvc repro` would wait for it.
"""

import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch

from lightweight.checkpointing.session import Session
from lightweight.core.errors import InputError, bad_param
from lightweight.core.files import write_csv
from lightweight.core.params import GENERAL, load_params
from lightweight.data.dataset import Split
from lightweight.data.dataset_file import load_dataset
from lightweight.data.sampling import balanced_sample
from lightweight.execution.determinism import configure_torch
from lightweight.execution.process import run_stage
from lightweight.networks.model_file import load_model
from lightweight.onnx.export import finalize_metadata
from lightweight.onnx.logits import onnx_logits, torch_logits
from lightweight.onnx.session import make_inference_session
from lightweight.quantization.params import QuantizeParams
from lightweight.quantization.parity import logit_error
from lightweight.quantization.quantizer import Quantizer

METHODS = ("dynamic", "static", "int4")
TABLE = Path("plots/layer_errors.csv")
COLUMNS = ["layer", "only_nearest", "only", "others_nearest", "others"]
# Returns the errors of the logits of files without these layers: rounded to nearest, and as the parameters ask.
Errors = Callable[[Collection[str]], tuple[float, float]]


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    params = load_params(Path("params.yaml"), **GENERAL, quantize=QuantizeParams)
    configure_torch(params)
    if params.quantize.method not in METHODS:
        raise bad_param("quantize.method", params.quantize.method, f"must be one of {', '.join(METHODS)} here")
    data = load_dataset(Path("data/prepared.safetensors"))
    source = load_model(Path("models/recalibrated.safetensors"), data)
    session = Session(data, params.seed, params.threads)
    quantizer = Quantizer(source, params.quantize, session, lambda *arguments: [])
    split = hold_back(data.train, quantizer.calibration, number, params.seed)
    converter = quantizer.make_converter()
    expected = torch_logits(source.model, data, split, quantizer.batch_size)

    def errors(excluded: Collection[str]) -> tuple[float, float]:
        plain = converter.convert(excluded)
        finalize_metadata(plain, data)
        files = plain.SerializeToString(), quantizer.serialize(converter, excluded)
        made = (make_inference_session(content, params.threads) for content in files)
        nearest, repaired = (logit_error(expected, onnx_logits(item, split, quantizer.batch_size)) for item in made)
        return nearest, repaired

    rows = measure_layers(list(converter.layers), errors)
    write_csv(TABLE, COLUMNS, rows)
    worst = rows[0]
    print(f"{worst['layer']} alone changes the logits by {worst['only']:.2%}; without it: {worst['others']:.2%}")
    print(f"-S 'quantize.exclude=[{worst['layer']}]' leaves it in float32; all layers: {TABLE}")


def measure_layers(layers: Collection[str], errors: Errors) -> list[dict[str, Any]]:
    """Measure each layer by two files, one in which it alone is converted, one in which all others are.

    Returns a row of `COLUMNS` per layer, the one first that makes the largest error alone.
    """
    rows = []
    for layer in layers:
        alone, others = errors([name for name in layers if name != layer]), errors([layer])
        rows.append(dict(zip(COLUMNS, (layer, *alone, *others), strict=True)))
    return sorted(rows, key=lambda row: -row["only"])


def hold_back(train: Split, calibration: torch.Tensor, number: int, seed: int) -> Split:
    """Draw training images that are not among those of calibration. Raises InputError when there are none."""
    rest = torch.ones(len(train), dtype=torch.bool)
    rest[calibration] = False
    left = rest.nonzero().flatten()
    if not len(left):
        raise InputError(f"All {len(train)} training images are for calibration: none is left to measure layers on")
    return train.take(left[balanced_sample(train.labels[left], number, seed)])


if __name__ == "__main__":
    run_stage(main)
