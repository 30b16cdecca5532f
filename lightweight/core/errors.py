"""One exception stands for everything that the user can mend."""

from typing import Any

LONGEST = 1000  # characters


class InputError(ValueError):
    """What was given cannot be used; the text is one line with the file, the key, the value and the rule.

    What it repeats of a file may be anything: control characters are escaped, the middle of a long text is left out.
    """

    def __init__(self, text: str) -> None:
        line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
        super().__init__(line if len(line) <= LONGEST else f"{line[: LONGEST - 305]} ... {line[-300:]}")


def first_line(error: BaseException) -> str:
    """Return the first line of the exception's text, or the name of its class when the text is empty."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def bad_param(key: str, value: Any, rule: str) -> InputError:
    """The error for a value of `params.yaml` that is well formed, but not possible here."""
    return InputError(f"params.yaml: {key} = {value!r}: {rule}")
