"""The command `python -m tools.verify`, which tools/verify/fresh_clone.py describes."""

from lightweight.core.process import run_stage
from tools.verify.fresh_clone import main

run_stage(main)
