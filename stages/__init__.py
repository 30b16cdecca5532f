"""A stage ends with the process that started it and at the first Ctrl-C, even while it imports, which takes seconds."""

import sys

if sys.argv[0] == "-m":  # while `python -m stages.NAME` looks for the module
    from lightweight.core.process import install_signal_handlers

    install_signal_handlers()
