"""Export to ONNX: the file takes raw pixels and holds the class names, so that its user needs no project code.

Input `input`: float32 (N, C, H, W), values 0 to 255. Output `logits`: float32 (N, classes).
"""

import json
import warnings
from copy import deepcopy
from importlib.metadata import version

import onnx
import torch
from torch import Tensor, nn

from lightweight.core.errors import InputError, first_line
from lightweight.core.files import FORMAT_KEY, FORMAT_VERSION
from lightweight.core.memory_format import to_memory_format
from lightweight.data.dataset import Dataset, resize
from lightweight.onnx.checksum import PRODUCER

CLASSES_KEY = "classes"  # in the metadata: the class names as a JSON list
INPUT_KEY = "input"  # what the pixels must be, as a JSON object
LICENSE_KEY = "license"  # of the model, as its owner names it
VERSIONS_KEY = "versions"  # of the packages that made the file, as a JSON object
PACKAGES = ("torch", "onnx", "onnxruntime")
NORMALIZATION = {"offset", "scale"}  # the names of the two constants of the input normalisation


class FromPixels(nn.Module):
    """Wrap a copy of the network to take raw pixels: resize them, then `(pixels - 255 mean) / (255 std)`."""

    offset: Tensor
    scale: Tensor

    def __init__(self, model: nn.Module, dataset: Dataset) -> None:
        super().__init__()
        # A global average of channels_last tensors would be exported with their strides, as a dozen nodes.
        self.model = to_memory_format(deepcopy(model), torch.contiguous_format)
        self.size = dataset.input_size
        self.register_buffer("offset", -255 * dataset.mean.view(1, -1, 1, 1))
        self.register_buffer("scale", 1 / (255 * dataset.std.view(1, -1, 1, 1)))

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute logits (N, classes) from pixels float32 (N, C, H, W), 0 to 255."""
        return self.model((resize(pixels, self.size) + self.offset) * self.scale)


def export_onnx(model: nn.Module, dataset: Dataset) -> onnx.ModelProto:
    """Export `model`, which is on the CPU, for any batch size, with the input normalisation and the class names.

    Equal weights give equal bytes, without traces of this machine. Raises InputError when the graph of the network
    depends on the values of the images.
    """
    network = FromPixels(model, dataset).eval()
    pixels = torch.zeros(2, dataset.channels, dataset.image_size, dataset.image_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecations
        try:
            program = torch.onnx.export(
                network,
                (pixels,),
                dynamo=True,
                input_names=["input"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise InputError(f"The network cannot be exported to ONNX: {_root_cause(error)}") from None
    assert program is not None  # the exporter returns None without `dynamo`
    exported = program.model_proto
    finalize_metadata(exported, dataset)
    return exported


def _root_cause(error: BaseException) -> str:
    """Return the first line of the error that made the exporter fail; the exporter adds pages of advice to it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def finalize_metadata(model: onnx.ModelProto, dataset: Dataset, license_name: str | None = None) -> None:
    """Describe the file in the metadata of `model`, in place; remove stack traces and all that no runtime reads."""
    size = dataset.image_size
    described = {
        "type": "float32",
        "shape": ["N", dataset.channels, size, size],
        "values": "0 to 255",
        "colours": "RGB" if dataset.channels == 3 else "grey",
        "from_photographs": f"turned upright as EXIF says, {dataset.resizing.describe(size)}",
    } | dataset.resizing.metadata()
    packages = {name: version(name).partition("+")[0] for name in PACKAGES}  # one for PyTorch's CPU and CUDA builds
    metadata = {CLASSES_KEY: dataset.classes, FORMAT_KEY: FORMAT_VERSION}
    metadata |= {INPUT_KEY: described, VERSIONS_KEY: packages} | ({LICENSE_KEY: license_name} if license_name else {})
    del model.metadata_props[:]
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    model.producer_name, model.producer_version, model.doc_string = PRODUCER, "", ""
    graph = model.graph
    used = {node.domain for node in graph.node}
    versions = [item for item in model.opset_import if item.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(versions)
    graph.name, graph.doc_string = "classifier", ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    ordered = sorted(graph.initializer, key=lambda item: item.name)
    del graph.initializer[:]
    graph.initializer.extend(ordered)
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
