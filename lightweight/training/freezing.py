"""A frozen part of a network does not change while the rest is trained: neither weights nor BatchNorm statistics."""

from fnmatch import fnmatchcase

from torch import nn

from lightweight.core.errors import bad_param


def freeze(model: nn.Module, patterns: list[str]) -> list[nn.Module]:
    """Exclude what the patterns name from training, and return the frozen modules, to be kept in evaluation mode.

    A pattern (`layer1`, `features.*`, `*.norm?`) names modules or parameters, shell style; a module stands for all
    inside it. Raises InputError for a pattern that names nothing, and when nothing is left to train.
    """
    frozen = []
    for pattern in patterns:
        modules = [module for name, module in model.named_modules() if name and fnmatchcase(name, pattern)]
        named = [parameter for name, parameter in model.named_parameters() if fnmatchcase(name, pattern)]
        if not modules and not named:
            parts = ", ".join(name for name, _ in model.named_children())
            raise bad_param("train.freeze", pattern, f"names no part of the network; its parts are {parts}")
        frozen += modules
        for parameter in [*named, *(inner for module in modules for inner in module.parameters())]:
            parameter.requires_grad_(False)
    if patterns and not any(parameter.requires_grad for parameter in model.parameters()):
        raise bad_param("train.freeze", patterns, "must leave something to train; train.epochs = 0 trains nothing")
    return frozen
