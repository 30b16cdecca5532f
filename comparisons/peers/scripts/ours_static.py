"""Quantize by the library: static int8 whose sums no CPU cuts off, weights rounded by GPTQ, biases corrected."""

import sys
from pathlib import Path

from lightweight.checkpointing.session import Session
from lightweight.core.params import load_params
from lightweight.data.dataset_file import load_dataset
from lightweight.networks.model_file import load_model
from lightweight.quantization.params import QuantizeParams
from lightweight.quantization.quantizer import Quantizer

PARAMS = Path(__file__).parents[3] / "params.yaml"
given, result = Path(sys.argv[1]), Path(sys.argv[2])
data = load_dataset(given / "given.safetensors")
changes = {"method": "static", "reduce_range": "auto", "rounding": "gptq", "bias_correction": True}
params = load_params(PARAMS, quantize=QuantizeParams).quantize.model_copy(update=changes)
source = load_model(given / "model.safetensors", data)
file = Quantizer(source, params, Session(data, seed=0), fine_tune=lambda *_: []).run()
(result / "compressed.onnx").write_bytes(file.content)
