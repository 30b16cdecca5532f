"""Quantize an ONNX file by Neural Compressor 2, the last one for such files: static, its own choices, QDQ."""

import sys
from pathlib import Path

import numpy as np
from neural_compressor import PostTrainingQuantConfig, quantization

given, result = Path(sys.argv[1]), Path(sys.argv[2])


class Images:
    batch_size = 1

    def __iter__(self):
        stored = np.load(given / "calibration.npz")
        for image, label in zip(stored["images"], stored["labels"], strict=True):
            yield image[None], label


config = PostTrainingQuantConfig(approach="static", quant_format="QDQ", calibration_sampling_size=512)
quantized = quantization.fit(str(given / "original.onnx"), config, calib_dataloader=Images())
quantized.save(str(result / "compressed.onnx"))
