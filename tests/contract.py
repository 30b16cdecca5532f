"""What a stage really uses, read from its source: imports, and sections of params.yaml."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("stages", "lightweight")


def imported_files(path: Path) -> set[str]:
    """The closure of imports inside the project, `path` included, relative to the root; empty modules left out."""
    found, todo = set(), [path]
    while todo:
        file = todo.pop()
        name = file.relative_to(ROOT).as_posix()
        if name not in found:
            found.add(name)
            todo += _modules(file)
    found |= {f"{name.split('/')[0]}/__init__.py" for name in found}
    return {name for name in found if (ROOT / name).stat().st_size}


def _modules(path: Path) -> list[Path]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    files = (ROOT / f"{name.replace('.', '/')}.py" for name in names if name.split(".")[0] in PACKAGES)
    return [file for file in files if file.exists()]


def loaded_sections(path: Path) -> set[str]:
    """The keywords of every `load_params` or `load_all_params` call in a stage script."""
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    return {
        keyword.arg
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id in ("load_params", "load_all_params")
        for keyword in call.keywords
    }
