"""Turn a compact file into an ONNX file in float32, whose logits are those that were evaluated.

python -m tools.unpack models/compact.lwz              writes models/compact.onnx
python -m tools.unpack models/compact.lwz small.onnx
"""

import argparse
from pathlib import Path

from lightweight.codec.reading import load_network
from lightweight.core.errors import InputError
from lightweight.core.files import write_bytes
from lightweight.execution.process import run_stage


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.unpack", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path, help="of the format .lwz")
    parser.add_argument("target", type=Path, nargs="?", help="of the format .onnx; without it, beside the file")
    options = parser.parse_args()
    target = options.target or options.file.with_suffix(".onnx")
    if target.suffix != ".onnx":
        raise InputError(f"{target}: must end in .onnx")
    content = load_network(options.file).to_onnx()
    write_bytes(target, content)
    print(f"unpack  {options.file} of {options.file.stat().st_size:,} bytes  -> {target} of {len(content):,} bytes")


if __name__ == "__main__":
    run_stage(main)
