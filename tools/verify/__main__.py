"""`python -m tools.verify`: see tools/verify/fresh_clone.py."""

from lightweight.core.process import run
from tools.verify.fresh_clone import main

run(main)
