"""Freezing: chosen parts of a network keep their weights and BatchNorm statistics while the rest is trained."""

from fnmatch import fnmatchcase

from torch import nn

from lightweight.core.errors import bad_param


def freeze(model: nn.Module, patterns: list[str]) -> list[nn.Module]:
    """Freeze the modules and parameters that the patterns name, and return the modules.

    The caller must keep the returned modules in evaluation mode. Patterns are shell-style (`layer1`, `features.*`,
    `*.norm?`); a module stands for everything inside it. Raises InputError for a pattern that names nothing, and when
    no parameter remains to be trained.
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
