"""Remove channels by torch-pruning and the gradients of the loss, compared over the whole network."""

import sys
from pathlib import Path

import torch
import torch_pruning as tp

from comparisons.peers.network import load_images, load_network

given, result = Path(sys.argv[1]), Path(sys.argv[2])
network, (images, labels) = load_network(given), load_images(given)
example = images[:2]
classifier = [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)][-1]
before, _ = tp.utils.count_ops_and_params(network, example)
pruner = tp.pruner.BasePruner(
    network,
    example,
    importance=tp.importance.GroupTaylorImportance(),
    global_pruning=True,
    max_pruning_ratio=0.9,
    pruning_ratio=0.5,
    iterative_steps=100,
    ignored_layers=[classifier],
)
while tp.utils.count_ops_and_params(network, example)[0] > 0.6 * before:
    network.zero_grad()
    torch.nn.functional.cross_entropy(network(images), labels).backward()
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
