"""torch.nn.utils.prune and torch-pruning as their documentation uses them: pruned once, fine-tuned, made permanent."""

from collections.abc import Callable

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn.utils import prune


def plain_unstructured(model: nn.Module, sparsity: float, fine_tune: Callable[[nn.Module], None]) -> nn.Module:
    """The smallest weights of all layers together are masked by hooks while the others are trained."""
    model.to(memory_format=torch.contiguous_format)  # it cannot flatten channels_last weights
    layers = [(module, "weight") for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=sparsity)
    fine_tune(model)
    for module, name in layers:
        prune.remove(module, name)
    return model


def plain_structured(
    model: nn.Module, sparsity: float, fine_tune: Callable[[nn.Module], None], ratio: float, image: Tensor
) -> nn.Module:
    """A share of the channels of each group of layers is removed, the classifier's left alone; `sparsity` follows."""
    classifier = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    pruner = torch_pruning.pruner.BasePruner(
        model.eval(), image, importance=importance, pruning_ratio=ratio, ignored_layers=[classifier]
    )
    pruner.step()
    fine_tune(model)
    return model
