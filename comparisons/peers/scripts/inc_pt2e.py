"""Quantize an exported program by Neural Compressor 3, static with its defaults, and write it as ONNX."""

import sys
from pathlib import Path

import torch
from neural_compressor.torch.export import export
from neural_compressor.torch.quantization import convert, get_default_static_config, prepare

from comparisons.peers.network import load_images, load_network

given, result = Path(sys.argv[1]), Path(sys.argv[2])
images, _ = load_images(given)
shapes = ({0: torch.export.Dim("batch")},)
program = export(load_network(given), example_inputs=(images[:2],), dynamic_shapes=shapes)
prepared = prepare(program, quant_config=get_default_static_config())
with torch.no_grad():
    for batch in images.split(64):
        prepared(batch)
quantized = convert(prepared)
torch.onnx.export(
    quantized,
    (images[:2],),
    result / "compressed.onnx",
    input_names=["input"],
    output_names=["logits"],
    dynamic_shapes=shapes,
    external_data=False,
)
