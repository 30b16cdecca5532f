"""`params.yaml` is the whole truth: every section is typed and bounded, and no value has a default in code."""

import difflib
import math
import re
from itertools import chain
from pathlib import Path
from reprlib import Repr
from types import SimpleNamespace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from lightweight.core.errors import InputError

Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
Threads = Annotated[int, Field(ge=1, le=1024, strict=True)]

LARGEST = 100_000  # bytes of the file, which has 5,000 in the project; the parser takes a second for them
MOST = 10_000  # values in it, each alias counted as all that it stands for: nine lines of aliases can stand for 9^9
LONGEST = 100  # characters of an integer, and of a value in a message
INNER = re.compile(r"\((share|auto|by layer)\)|\[key\]")  # what stands in a place for a part of a union, and for a key
SHOWN = Repr()  # of values, which may be of any size
SHOWN.maxlevel, SHOWN.maxstring, SHOWN.maxother = 2, 80, 80


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
    content = _read(path)
    for name in content:
        if name not in sections:
            raise InputError(f"{path}: {_plain(name)}: unknown section{_nearest(name, set(sections))}")
    return SimpleNamespace(**{name: _section(path, content, name, kind) for name, kind in sections.items()})


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; run from the root of the project")
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path}: has {path.stat().st_size:,} bytes: must be at most {LARGEST:,}")
    try:
        text = path.read_text(encoding="utf-8")
        size = _size(YAML(typ="safe").compose(text), {})
        content = YAML(typ="safe").load(text) if size <= MOST else None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}{line}: not valid YAML: {_line(error.problem or error.context)}") from None
    except Exception as error:  # the parser raises whatever an odd text leads to
        raise InputError(f"{path}: not valid YAML: {_line(error)}") from None
    if size > MOST:
        raise InputError(f"{path}: holds more than {MOST:,} values, each alias counted as all that it stands for")
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a mapping of sections")
    return content


def _size(node: Node | None, known: dict[int, float]) -> float:
    """The number of values in `node`, an alias counted as all that it stands for: infinite if that is itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        if isinstance(node, ScalarNode) and str(node.tag).endswith(":int") and len(node.value) > LONGEST:
            raise ValueError(f"an integer of more than {LONGEST} digits")  # of which Python prints only some thousands
        parts = node.value if isinstance(node, SequenceNode | MappingNode) else []
        parts = chain.from_iterable(parts) if isinstance(node, MappingNode) else parts
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]


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
    key = ".".join(_plain(part) for part in (section, *first["loc"]) if not INNER.fullmatch(str(part)))
    match first["type"]:
        case "missing":
            return f"{key}: missing"
        case "extra_forbidden":
            *parents, last = first["loc"]
            rule = f"unknown key{_nearest(last, _keys(kind, parents))}"
        case "value_error":
            rule = _line(first["ctx"]["error"])
        case _:
            rule = _line(re.sub(r"^\w+ should ", "must ", first["msg"]))
    return f"{key} = {_shown(first['input'])}: {rule}"


def _keys(kind: Any, parents: list[Any]) -> set[str]:
    for name in parents:
        field = kind.model_fields[name].annotation
        kind = field if hasattr(field, "model_fields") else kind
    return set(kind.model_fields)


def _nearest(name: Any, known: set[str]) -> str:
    close = difflib.get_close_matches(_plain(name), sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(sorted(known))}"


def _plain(name: Any) -> str:
    """A key, which may be of any type and hold any character."""
    return _shown(name)[1:-1] if isinstance(name, str) else _shown(name)


def _shown(value: Any) -> str:
    text = SHOWN.repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _line(text: Any) -> str:
    """The text of an error, which may repeat what stands in the file."""
    line = " ".join(str(text).split())
    return line if len(line) <= 300 else f"{line[:297]}..."
