"""Pruning by torch.nn.utils.prune and by torch-pruning as their documentation uses them: once, then fine-tuned."""

from collections.abc import Callable

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn.utils import prune

from lightweight.core.memory_format import to_memory_format


def plain_unstructured(model: nn.Module, sparsity: float, fine_tune: Callable[[nn.Module], None]) -> nn.Module:
    """Mask the smallest weights of all layers together by hooks, train the others, and make the masks permanent."""
    to_memory_format(model, torch.contiguous_format)  # torch.nn.utils.prune cannot flatten channels_last weights
    layers = [(module, "weight") for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=sparsity)
    fine_tune(model)
    for module, name in layers:
        prune.remove(module, name)
    return model


def plain_structured(
    model: nn.Module, sparsity: float, fine_tune: Callable[[nn.Module], None], ratio: float, image: Tensor
) -> nn.Module:
    """Remove the share `ratio` of the channels of each group of layers but the classifier, and train what is left.

    `sparsity` is unused: the caller chooses `ratio` so that about this share of the parameters is removed.
    """
    classifier = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    pruner = torch_pruning.pruner.BasePruner(
        model.eval(), image, importance=importance, pruning_ratio=ratio, ignored_layers=[classifier]
    )
    pruner.step()
    fine_tune(model)
    return model
