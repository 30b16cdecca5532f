"""The command `python -m tools.verify`, which tools/verify/fresh_clone.py describes."""

from lightweight.execution.process import run_stage
from tools.verify.fresh_clone import main

run_stage(main)
