"""Convert the model to an ExecuTorch program for phones, computed by XNNPACK; check, score and time it.

    make executorch

Reads   params.yaml, data/prepared.safetensors, models/{original,recalibrated}.safetensors, models/optimized.onnx
Writes  models/optimized.pte
By `quantize.method`: none (float32); dynamic (int8 weights of linear layers, per channel); static (of all layers,
activations too, by the extremes of the calibration images).
"""

from pathlib import Path

import numpy as np
import torch

from edge.conversion import Predict, Source, converter, run_converter
from lightweight.execution.process import run_stage


def convert(source: Source) -> bytes:
    """Convert the model to a program; equal models, images and versions give equal bytes."""
    with converter("executorch"):
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as xnnpack
        from executorch.exir import to_edge_transform_and_lower
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        captured = torch.export.export(source.network, source.blank)
        if source.params.method != "none":
            dynamic = source.params.method == "dynamic"
            config = xnnpack.get_symmetric_quantization_config(is_per_channel=True, is_dynamic=dynamic)
            observed = prepare_pt2e(captured.module(), xnnpack.XNNPACKQuantizer().set_global(config))
            for image in torch.from_numpy(source.images).split(1):
                observed(image)
            captured = torch.export.export(convert_pt2e(observed), source.blank)
        lowered = to_edge_transform_and_lower(captured, partitioner=[XnnpackPartitioner()])
        return bytes(lowered.to_executorch().buffer)


def open_model(content: bytes, threads: int) -> Predict:
    """Load a program in the runtime of ExecuTorch."""
    with converter("executorch"):
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
        from executorch.runtime import Runtime

    _unsafe_reset_threadpool(threads)
    method = Runtime.get().load_program(content).load_method("forward")
    return lambda image: method.execute((torch.from_numpy(np.ascontiguousarray(image)),))[0].numpy().copy()


if __name__ == "__main__":
    run_stage(lambda: run_converter(Path("models/optimized.pte"), convert, open_model))
