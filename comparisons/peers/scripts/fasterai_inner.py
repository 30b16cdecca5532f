"""Remove channels by fasterai: those of the smallest weights, within residual blocks alone."""

import sys
from pathlib import Path

import torch
from fasterai.core.criteria import large_final
from fasterai.prune.pruner import Pruner
from torch_pruning.utils import count_ops_and_params

from comparisons.peers.network import load_images, load_network

given, result = Path(sys.argv[1]), Path(sys.argv[2])
network, example = load_network(given), load_images(given)[0][:2]
summed = ("model.conv", "conv2", "fc")  # whose outputs are added to others, and the classifier
kept = [layer for name, layer in network.named_modules() if name.endswith(summed)]
before, _ = count_ops_and_params(network, example)
pruner = Pruner(network, 0.5, "local", large_final, ignored_layers=kept, example_inputs=example, iterative_steps=100)
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
