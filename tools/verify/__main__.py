"""`python -m tools.verify`: see tools/verify/fresh_clone.py."""

from lightweight.core.process import run_stage
from tools.verify.fresh_clone import main

run_stage(main)
