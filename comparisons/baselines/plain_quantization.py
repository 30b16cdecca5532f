"""The quantizers of ONNX Runtime and of NNCF as their documentation uses them, on the float32 file and its images."""

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # on by default, and read once: while it is imported

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

Quantize = Callable[[Path, np.ndarray, Path], None]  # source, float32 images (N, C, H, W), result


class Images(CalibrationDataReader):
    def __init__(self, images: np.ndarray) -> None:
        self.images: Iterator[np.ndarray] = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.images, None)
        return None if image is None else {"input": image[None]}


def ort_dynamic(source: Path, images: np.ndarray, result: Path) -> None:
    quantize_dynamic(prepared(source), result)


def ort_static(source: Path, images: np.ndarray, result: Path) -> None:
    """int8 activations, weights per tensor: what `quantize_static` does when it is told nothing else."""
    quantize_static(prepared(source), result, Images(images))


def ort_static_uint8(source: Path, images: np.ndarray, result: Path) -> None:
    """What the documentation advises for x86 CPUs that saturate: uint8 activations and weights in 7 bits."""
    how = {"quant_format": QuantFormat.QDQ, "per_channel": True, "reduce_range": True}
    how |= {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(prepared(source), result, Images(images), **how)


def nncf_onnx(source: Path, images: np.ndarray, result: Path) -> None:
    import nncf

    onnx.save(nncf.quantize(onnx.load(source), nncf.Dataset(list(images), _named)), result)


def nncf_openvino(source: Path, images: np.ndarray, result: Path) -> None:
    import nncf
    import openvino

    model = openvino.Core().read_model(source)
    openvino.save_model(nncf.quantize(model, nncf.Dataset(list(images), lambda image: image[None])), result)


def openvino_float(source: Path, images: np.ndarray, result: Path) -> None:
    import openvino

    openvino.save_model(openvino.Core().read_model(source), result, compress_to_fp16=False)


def quantizers() -> dict[tuple[str, str], tuple[str, Quantize]]:
    """File suffix and function by tool and method; those of NNCF and OpenVINO where they are installed."""
    found = {
        ("ONNX Runtime", "dynamic, defaults"): (".onnx", ort_dynamic),
        ("ONNX Runtime", "static, defaults"): (".onnx", ort_static),
        ("ONNX Runtime", "static, u8s8 per channel"): (".onnx", ort_static_uint8),
    }
    if find_spec("openvino"):
        found["OpenVINO", "float32"] = (".xml", openvino_float)
    if find_spec("nncf"):
        found["NNCF in ONNX Runtime", "static"] = (".onnx", nncf_onnx)
        found["NNCF in OpenVINO", "static"] = (".xml", nncf_openvino)
    return found


def prepared(source: Path) -> onnx.ModelProto:
    """Without it the quantizers of ONNX Runtime fail on the shapes that PyTorch's exporter writes."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / source.name
        quant_pre_process(source, path)
        return onnx.load(path)


def _named(image: np.ndarray) -> dict[str, np.ndarray]:
    return {"input": image[None]}
