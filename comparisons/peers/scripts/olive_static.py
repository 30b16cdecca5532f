"""Quantize by Olive's pass for ONNX Runtime: uint8 activations, weights in 7 bits by channel."""

import sys
from pathlib import Path

import numpy as np
import torch
from olive.data.registry import Registry
from olive.workflows import run

given, result = Path(sys.argv[1]), Path(sys.argv[2])


@Registry.register_dataset()
def calibration_images(**_):
    stored = np.load(given / "calibration.npz")
    return [({"input": torch.from_numpy(image)}, int(label)) for image, label in zip(*stored.values(), strict=True)]


run(
    {
        "input_model": {"type": "ONNXModel", "model_path": str(given / "original.onnx")},
        "data_configs": [
            {
                "name": "calibration",
                "type": "DataContainer",
                "load_dataset_config": {"type": "calibration_images"},
                "dataloader_config": {"batch_size": 1},
            }
        ],
        "passes": {
            "quantize": {
                "type": "OnnxStaticQuantization",
                "data_config": "calibration",
                "quant_format": "QDQ",
                "per_channel": True,
                "reduce_range": True,
                "activation_type": "uint8",
                "precision": "int8",
            }
        },
        "output_dir": str(result / "olive"),
        "cache_dir": str(result / "cache"),
    }
)
next((result / "olive").rglob("*.onnx")).rename(result / "compressed.onnx")
