"""One exception stands for everything that the user can mend."""

from typing import Any


class InputError(ValueError):
    """What was given cannot be used; the text is one line with the file, the key, the value and the rule."""


def bad_param(key: str, value: Any, rule: str) -> InputError:
    """The error for a value of `params.yaml` that is well formed, but not possible here."""
    return InputError(f"params.yaml: {key} = {value!r}: {rule}")
