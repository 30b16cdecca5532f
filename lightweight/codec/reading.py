"""Read a `.lwz` file from the disk; it may be damaged or come from elsewhere."""

from pathlib import Path

from lightweight.codec.container import PackedNetwork, unpack
from lightweight.core.errors import InputError, first_line
from lightweight.core.files import read_bytes


def load_network(path: Path) -> PackedNetwork:
    """Read a `.lwz` file. Raises InputError when it is missing, damaged, or of another version."""
    content = read_bytes(path)
    if not content:
        raise InputError(f"{path}: is empty; with compact.enabled: true, `dvc repro` makes it")
    try:
        return unpack(content)
    except ValueError as error:
        raise InputError(f"{path}: {first_line(error)}") from None
    except Exception as error:  # bytes that no encoder wrote, of a right checksum, may decode to anything
        raise InputError(f"{path}: damaged or not a .lwz file of this project: {first_line(error)}") from None
