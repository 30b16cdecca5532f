"""What a stage really uses, read from its source: imports, the rooms that these lie in, and sections of params.yaml."""

import ast
from functools import cache
from pathlib import Path

from lightweight.core.params import GENERAL

ROOT = Path(__file__).parent.parent
PACKAGES = ("stages", "lightweight")


@cache
def imported_files(path: Path) -> frozenset[str]:
    """Close the imports inside the project over `path`, itself included: paths relative to the root, no empty files."""
    found, todo = set(), [path]
    while todo:
        file = todo.pop()
        name = file.relative_to(ROOT).as_posix()
        if name not in found:
            found.add(name)
            todo += directly_imported(file)
    found |= {f"{name.split('/')[0]}/__init__.py" for name in found}
    return frozenset(name for name in found if (ROOT / name).stat().st_size)


def directly_imported(path: Path) -> list[Path]:
    """List the modules of the project that the file names in an import."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    files = (ROOT / f"{name.replace('.', '/')}.py" for name in names if name.split(".")[0] in PACKAGES)
    return [file for file in files if file.exists()]


def room(file: str) -> str:
    """Name the folder of the library that a file lies in; a technique of one file, or a stage, is its own room."""
    package, *inner, _ = file.split("/")
    return f"{package}/{inner[0]}" if package == "lightweight" and inner else file


def loaded_sections(path: Path) -> set[str]:
    """Collect the keywords of every `load_params` or `load_all_params` call in a stage script."""
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    keywords = {
        keyword.arg
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id in ("load_params", "load_all_params")
        for keyword in call.keywords
    }
    return {name for name in keywords if name} | (set(GENERAL) if None in keywords else set())  # None: **GENERAL
