"""Quantize by AIMET: weights in 4 bits by channel, ranges of weights by its sequential MSE."""

import sys
from pathlib import Path

import numpy as np
import onnx
from aimet_onnx import QuantizationSimModel, apply_seq_mse, int4, int8
from aimet_onnx.common.quantsim_config.utils import get_path_for_per_channel_config

given, result = Path(sys.argv[1]), Path(sys.argv[2])
images = np.load(given / "calibration.npz")["images"]
batches = [{"input": batch} for batch in np.split(images, len(images) // 32)]
model = onnx.load(given / "original.onnx")
config = get_path_for_per_channel_config()
sim = QuantizationSimModel(model, param_type=int4, activation_type=int8, quant_scheme="min_max", config_file=config)
apply_seq_mse(sim, batches)
sim.compute_encodings(batches)
onnx.save(sim.to_onnx_qdq(export_int32_bias=True, prequantize_constants=True), result / "compressed.onnx")
