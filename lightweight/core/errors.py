"""The exception for everything that the user can mend, and how the text of other exceptions becomes part of it."""

from typing import Any

MAX_MESSAGE_CHARACTERS = 1000
MAX_MESSAGE_END_CHARACTERS = 300  # of a longer message, which loses its middle
MAX_PROBLEM_CHARACTERS = 300


class InputError(ValueError):
    """Error in what the user gave, in one line: the file, the key, the value and the rule.

    The text may repeat anything that stands in a file: control characters are escaped, the middle of a long text is
    left out.
    """

    def __init__(self, text: str) -> None:
        line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
        if len(line) > MAX_MESSAGE_CHARACTERS:
            beginning = MAX_MESSAGE_CHARACTERS - MAX_MESSAGE_END_CHARACTERS - len(" ... ")
            line = f"{line[:beginning]} ... {line[-MAX_MESSAGE_END_CHARACTERS:]}"
        super().__init__(line)


def first_line(error: BaseException) -> str:
    """Return the first line of the exception's text, or the name of its class when the text is empty."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def one_line(problem: object) -> str:
    """Join the lines of a text, such as an exception's, and cut what is longer than 300 characters."""
    line = " ".join(str(problem).split())
    return line if len(line) <= MAX_PROBLEM_CHARACTERS else f"{line[: MAX_PROBLEM_CHARACTERS - 3]}..."


def bad_param(key: str, value: Any, rule: str) -> InputError:
    """Make the error for a value of `params.yaml` that is well formed, but not possible here."""
    return InputError(f"params.yaml: {key} = {value!r}: {rule}")
