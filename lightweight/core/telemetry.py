"""Switch off the telemetry of ONNX Runtime, which is on by default: import this module before onnxruntime.

ONNX Runtime reads the switch once, while it is imported. Ruff sorts imports of this module before those of packages
(`tool.ruff.lint.isort` in pyproject.toml).
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
