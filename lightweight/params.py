"""`params.yaml` is the whole truth: every section is typed and bounded, and no value has a default in code."""

import difflib
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from lightweight.errors import InputError

Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
Threads = Annotated[int, Field(ge=1, le=1024, strict=True)]


class Params(BaseModel):
    """One section: unknown keys, missing keys, wrong types, NaN and infinity are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


def load_params(path: Path, **sections: Any) -> SimpleNamespace:
    """The named sections of the file at `path`, each as the type given for it.

    YAML 1.2 as DVC reads it, so that `1e-3` is a number for both. Raises InputError with one line:
    file, key, value and rule.
    """
    content = _read(path)
    return SimpleNamespace(**{name: _section(path, content, name, kind) for name, kind in sections.items()})


def load_all_params(path: Path, **sections: Any) -> SimpleNamespace:
    """`load_params` of a file that may hold no other section. Raises InputError."""
    for name in _read(path):
        if name not in sections:
            raise InputError(f"{path}: {name}: unknown section{_nearest(str(name), set(sections))}")
    return load_params(path, **sections)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run from the root of the project") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = " ".join(str(error.problem or error.context).split())
        raise InputError(f"{path}{line}: not valid YAML: {problem}") from None
    except (YAMLError, ValueError, KeyError, IndexError, RecursionError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a mapping of sections")
    return content


def _section(path: Path, content: dict[str, Any], name: str, kind: Any) -> Any:
    if name not in content:
        raise InputError(f"{path}: {name}: missing")
    try:
        return TypeAdapter(kind).validate_python(content[name])
    except ValidationError as error:
        raise InputError(f"{path}: {_one_line(name, content[name], kind, error)}") from None


def _one_line(section: str, content: Any, kind: Any, error: ValidationError) -> str:
    errors = error.errors(include_url=False)
    first = next((found for found in errors if found["type"] == "extra_forbidden"), errors[0])
    key = ".".join(str(part) for part in (section, *first["loc"]))
    match first["type"]:
        case "missing":
            return f"{key}: missing"
        case "extra_forbidden":
            *parents, last = first["loc"]
            return f"{key} = {first['input']!r}: unknown key{_nearest(str(last), _keys(kind, parents))}"
        case "value_error":
            return f"{key} = {first['input']!r}: {first['ctx']['error']}"
        case _:
            rule = re.sub(r"^\w+ should ", "must ", first["msg"])
            return f"{key} = {first['input']!r}: {rule}"


def _keys(kind: Any, parents: list[Any]) -> set[str]:
    for name in parents:
        field = kind.model_fields[name].annotation
        kind = field if hasattr(field, "model_fields") else kind
    return set(kind.model_fields)


def _nearest(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(sorted(known))}"
