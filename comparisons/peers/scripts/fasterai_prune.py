"""Remove channels by fasterai: those of the smallest weights, in equal shares of every layer."""

import sys
from pathlib import Path

import torch
from fasterai.core.criteria import large_final
from fasterai.prune.pruner import Pruner
from torch_pruning.utils import count_ops_and_params

from comparisons.peers.network import load_images, load_network

given, result = Path(sys.argv[1]), Path(sys.argv[2])
network, example = load_network(given), load_images(given)[0][:2]
classifier = [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)][-1]
before, _ = count_ops_and_params(network, example)
pruner = Pruner(
    network, 0.5, "local", large_final, ignored_layers=[classifier], example_inputs=example, iterative_steps=100
)
while count_ops_and_params(network, example)[0] > 0.6 * before:
    pruner.prune_model()
torch.onnx.export(
    network.eval(),
    (example,),
    result / "compressed.onnx",
    input_names=["input"],
    output_names=["logits"],
    dynamic_shapes=({0: torch.export.Dim("batch")},),
    external_data=False,
)
