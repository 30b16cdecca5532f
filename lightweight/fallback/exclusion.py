"""Layers that stay in float32 because `quantize.exclude` names them."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase

from lightweight.core.errors import bad_param

KEY = "quantize.exclude"
SUGGESTIONS = 3


def match_layers(patterns: Iterable[str], layers: Collection[str]) -> list[str]:
    """List the layers, in their order, that a name or a pattern such as `features.0.*` names.

    Raises InputError with the nearest names for a pattern that names no layer.
    """
    patterns = list(patterns)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in layers):
            near = get_close_matches(pattern.rstrip("*"), layers, SUGGESTIONS, cutoff=0.0)
            known = f"did you mean {' or '.join(near)}?" if near else "the network has none that could be converted"
            raise bad_param(KEY, pattern, f"names no layer; {known}")
    return [name for name in layers if any(fnmatchcase(name, pattern) for pattern in patterns)]
