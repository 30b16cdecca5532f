import pytest

from lightweight.core.errors import MAX_MESSAGE_CHARACTERS, InputError, first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one line"), "one line"),
        (RuntimeError("first\nsecond"), "first"),
        (ValueError(""), "ValueError"),
        (SystemExit(3), "3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_the_first_line_of_an_error_is_that_of_its_text_or_else_its_class(error, line):
    assert first_line(error) == line


def test_an_input_error_is_one_printable_line_of_bounded_length():
    text = str(InputError("a\nb\x1b[31m" + "c" * 5000 + "the end"))
    assert text.isprintable()
    assert text.startswith("a\\nb\\x1b[31m")
    assert text.endswith("the end")
    assert len(text) <= MAX_MESSAGE_CHARACTERS
