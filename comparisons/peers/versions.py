"""Versions of the packages of a peer, as they are installed in its environment."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

from comparisons.peers.running import OWN
from comparisons.peers.trials import REQUIREMENTS

ASK = "import sys; from importlib.metadata import version; print(*(version(name) for name in sys.argv[1:]))"
OWN_PACKAGES = ("torch", "onnxruntime")


def versions_of(environment: str, python: Path) -> str:
    """Name the packages that were asked for in an environment, with the versions in it."""
    if environment == OWN:
        return ", ".join(f"{name} {metadata.version(name).partition('+')[0]}" for name in OWN_PACKAGES)
    names = main_packages(REQUIREMENTS / f"{environment}.txt")
    done = subprocess.run([str(python), "-c", ASK, *names], capture_output=True, text=True, check=True)
    found = (version.partition("+")[0] for version in done.stdout.split())
    return ", ".join(f"{name} {version}" for name, version in zip(names, found, strict=True))


def main_packages(requirements: Path) -> list[str]:
    """List the packages of a requirement file down to its first empty line, below which stands what these bring."""
    lines = requirements.read_text().partition("\n\n")[0].splitlines()
    return [line.partition("==")[0] for line in lines if line and not line.startswith(("#", "-"))]


if __name__ == "__main__":
    print(versions_of(sys.argv[1], Path(sys.executable)))
