"""The model as a LiteRT (TensorFlow Lite) file for phones and microcontrollers, checked, scored and timed.

    make litert

Reads   params.yaml, data/prepared.safetensors, models/{original,recalibrated}.safetensors, models/optimized.onnx
Writes  models/optimized.tflite
By `quantize.method`: none (float32); dynamic (int8 weights of all layers, per channel); static (activations too, by the
extremes of the calibration images).
"""

import os
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import numpy as np

from edge.conversion import Predict, Source, converter, deliver
from lightweight.core.process import run_stage


def convert(source: Source) -> bytes:
    """Equal models, images and versions give equal bytes."""
    with converter("litert"):
        import litert_torch
        from ai_edge_quantizer import recipe

        exported = litert_torch.convert(source.network, source.blank).model_content()
        match source.params.method:
            case "none":
                return exported
            case "dynamic":
                return quantized(exported, recipe.dynamic_wi8_afp32(), None)
        return quantized(exported, recipe.static_wi8_ai8(), source.images)


def quantized(exported: bytes, how: list, images: np.ndarray | None) -> bytes:
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer.calibrator import Calibrator
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.quantizer import Quantizer
    from ai_edge_quantizer.recipe_manager import RecipeManager
    from ai_edge_quantizer.utils.qsv_utils import min_max_update

    quantizer, recipes = Quantizer(bytearray(exported)), RecipeManager()
    quantizer.load_quantization_recipe(how)
    for operation in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):  # pixels and logits stay as in ONNX
        quantizer.update_quantization_recipe(".*", operation, algorithm_key="no_quantize")
    ranges = None
    if images is not None:
        recipes.load_quantization_recipe(quantizer.get_quantization_recipe())
        # By default it takes moving averages, which cut the largest activations and logits off.
        calibrator = Calibrator(bytearray(exported), 1, qsv_update_func=min_max_update)
        ((signature, names),) = Interpreter(model_content=exported).get_signature_list().items()
        calibrator.calibrate({signature: [{names["inputs"][0]: image[None]} for image in images]}, recipes)
        ranges = calibrator.get_model_qsvs()
    return bytes(quantizer.quantize(ranges, enable_progress_report=False).quantized_model)


def opened(content: bytes, threads: int) -> Predict:
    with converter("litert"):
        from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    (given,), (taken,) = interpreter.get_input_details(), interpreter.get_output_details()

    def predict(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], image)
        interpreter.invoke()
        return interpreter.get_tensor(taken["index"])

    return predict


if __name__ == "__main__":
    run_stage(lambda: deliver(Path("models/optimized.tflite"), convert, opened))
