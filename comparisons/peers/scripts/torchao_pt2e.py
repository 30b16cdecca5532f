"""Quantize by torchao's static quantization of exported programs for x86, and write the program as ONNX."""

import sys
from pathlib import Path

import torch
from torchao.quantization.pt2e import move_exported_model_to_eval
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)

from comparisons.peers.network import load_images, load_network

given, result = Path(sys.argv[1]), Path(sys.argv[2])
images, _ = load_images(given)
shapes = ({0: torch.export.Dim("batch")},)
program = torch.export.export(load_network(given), (images[:2],), dynamic_shapes=shapes).module()
quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config(reduce_range=True))
prepared = prepare_pt2e(program, quantizer)
with torch.no_grad():
    for batch in images.split(64):
        prepared(batch)
quantized = convert_pt2e(prepared)
move_exported_model_to_eval(quantized)
torch.onnx.export(
    quantized,
    (images[:2],),
    result / "compressed.onnx",
    input_names=["input"],
    output_names=["logits"],
    dynamic_shapes=shapes,
    external_data=False,
)
