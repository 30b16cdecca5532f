"""Remove channels by torch-pruning as its README does: those of the smallest norms, within residual blocks alone."""

import sys
from pathlib import Path

import torch
import torch_pruning as tp

from comparisons.peers.network import load_images, load_network

given, result = Path(sys.argv[1]), Path(sys.argv[2])
network, example = load_network(given), load_images(given)[0][:2]
summed = ("model.conv", "conv2", "fc")  # whose outputs are added to others, and the classifier
kept = [layer for name, layer in network.named_modules() if name.endswith(summed)]
before, _ = tp.utils.count_ops_and_params(network, example)
pruner = tp.pruner.BasePruner(
    network,
    example,
    importance=tp.importance.GroupMagnitudeImportance(p=2),
    pruning_ratio=0.5,
    iterative_steps=100,
    ignored_layers=kept,
)
while tp.utils.count_ops_and_params(network, example)[0] > 0.6 * before:
    pruner.step()
torch.onnx.export(
    network.eval(),
    (example,),
    result / "compressed.onnx",
    input_names=["input"],
    output_names=["logits"],
    dynamic_shapes=({0: torch.export.Dim("batch")},),
    external_data=False,
)
