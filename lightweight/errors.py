"""One exception stands for everything that the user can mend."""


class InputError(ValueError):
    """What was given cannot be used; the text is one line with the file, the key, the value and the rule."""
