"""What must be fixed before a stage imports anything large.

A stage ends with the process that started it and at the first Ctrl-C, even while it imports, which takes seconds. Its
instruction set is fixed before the libraries choose one, unless the stage computes nothing that dvc.lock records.
"""

import sys
from pathlib import Path

NATIVE = {"check", "benchmark", "provenance", "plot"}  # stages whose arithmetic is the machine's own

if sys.argv[0] == "-m":  # while `python -m stages.NAME` looks for the module
    from lightweight.execution.process import fix_arithmetic, install_signal_handlers

    install_signal_handlers()
    if sys.orig_argv[sys.orig_argv.index("-m") + 1].removeprefix("stages.") not in NATIVE:
        fix_arithmetic(Path("params.yaml"))
