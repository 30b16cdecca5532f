"""Convert the model to a LiteRT (TensorFlow Lite) file for phones and microcontrollers; check, score and time it.

    make litert

Reads   params.yaml, data/prepared.safetensors, models/{original,recalibrated}.safetensors, models/optimized.onnx
Writes  models/optimized.tflite
By `quantize.method`: none (float32); dynamic (int8 weights of all layers, per channel); static (activations too, by the
extremes of the calibration images).
"""

import os
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import numpy as np

from edge.conversion import Predict, Source, converter, run_converter
from lightweight.execution.process import run_stage


def convert(source: Source) -> bytes:
    """Convert the model to a file; equal models, images and versions give equal bytes."""
    with converter("litert"):
        import litert_torch
        from ai_edge_quantizer import recipe

        exported = litert_torch.convert(source.network, source.blank).model_content()
        match source.params.method:
            case "none":
                return exported
            case "dynamic":
                return quantize(exported, recipe.dynamic_wi8_afp32(), None)
        return quantize(exported, recipe.static_wi8_ai8(), source.images)


def quantize(exported: bytes, recipes: list[dict[str, Any]], images: np.ndarray | None) -> bytes:
    """Quantize a float32 file by the recipes, with the ranges of activations in `images` (N, C, H, W) if given."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer.calibrator import Calibrator
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.quantizer import Quantizer
    from ai_edge_quantizer.recipe_manager import RecipeManager
    from ai_edge_quantizer.utils.qsv_utils import min_max_update

    quantizer, manager = Quantizer(bytearray(exported)), RecipeManager()
    quantizer.load_quantization_recipe(recipes)
    for operation in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):  # pixels and logits stay as in ONNX
        quantizer.update_quantization_recipe(".*", operation, algorithm_key="no_quantize")
    ranges = None
    if images is not None:
        manager.load_quantization_recipe(quantizer.get_quantization_recipe())
        # By default it takes moving averages, which cut the largest activations and logits off.
        calibrator = Calibrator(bytearray(exported), 1, qsv_update_func=min_max_update)
        ((signature, names),) = Interpreter(model_content=exported).get_signature_list().items()
        calibrator.calibrate({signature: [{names["inputs"][0]: image[None]} for image in images]}, manager)
        ranges = calibrator.get_model_qsvs()
    return bytes(quantizer.quantize(ranges, enable_progress_report=False).quantized_model)


def open_model(content: bytes, threads: int) -> Predict:
    """Load a file in the interpreter of LiteRT."""
    with converter("litert"):
        from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    (input_details,), (output_details,) = interpreter.get_input_details(), interpreter.get_output_details()

    def predict(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(input_details["index"], image)
        interpreter.invoke()
        return interpreter.get_tensor(output_details["index"])

    return predict


if __name__ == "__main__":
    run_stage(lambda: run_converter(Path("models/optimized.tflite"), convert, open_model))
