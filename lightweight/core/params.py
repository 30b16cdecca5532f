"""Reading of `params.yaml`: every section is typed and bounded, and no value has a default in code."""

import difflib
import re
from collections.abc import Callable
from pathlib import Path
from reprlib import Repr
from types import SimpleNamespace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, WrapValidator

from lightweight.core.errors import InputError, one_line
from lightweight.core.yaml import read_yaml

Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
Threads = Annotated[int, Field(ge=1, le=1024, strict=True)]
Shards = Literal[1, 2, 4, 8, 16, 32, 64]
Arithmetic = Literal["portable", "native"]
GENERAL = {"seed": Seed, "threads": Threads, "arithmetic": Arithmetic}  # the keys at the top, of all that is computed

MAX_VALUE_CHARACTERS = 100  # of a value in a message
UNION_MEMBER = re.compile(r"\((share|auto|by layer)\)|\[key\]")  # in pydantic's place of an error, beside real keys
VALUE_REPR = Repr()  # of values, which may be of any size
VALUE_REPR.maxlevel, VALUE_REPR.maxstring, VALUE_REPR.maxother = 2, 80, 80


class Params(BaseModel):
    """Base of the models of sections: unknown keys, missing keys, wrong types, NaN and infinity are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


def name_forms(forms: str) -> WrapValidator:
    """Name all forms of a value that has none of them, in place of the faults by each form."""

    def check(value: Any, validate: Callable[[Any], Any]) -> Any:
        try:
            return validate(value)
        except ValidationError:
            raise ValueError(f"must be {forms}") from None

    return WrapValidator(check)


def load_params(path: Path, **sections: Any) -> SimpleNamespace:
    """Load the named sections of the file at `path`, each as the type given for it.

    Raises InputError with one line: file, key, value and rule.
    """
    content = _read_sections(path)
    return SimpleNamespace(**{name: _validate(path, content, name, kind) for name, kind in sections.items()})


def load_all_params(path: Path, **sections: Any) -> SimpleNamespace:
    """Load all sections as `load_params` does, and refuse a section that is not named. Raises InputError."""
    content = _read_sections(path)
    for name in content:
        if name not in sections:
            raise InputError(f"{path}: {_format_key(name)}: unknown section{_suggest(name, set(sections))}")
    return SimpleNamespace(**{name: _validate(path, content, name, kind) for name, kind in sections.items()})


def _read_sections(path: Path) -> dict[Any, Any]:
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a mapping of sections")
    return content


def _validate(path: Path, content: dict[Any, Any], name: str, kind: Any) -> Any:
    """Convert a section to the type `kind`. Raises InputError."""
    if name not in content:
        raise InputError(f"{path}: {name}: missing")
    try:
        return TypeAdapter(kind).validate_python(content[name])
    except ValidationError as error:
        raise InputError(f"{path}: {_describe(name, kind, error)}") from None


def _describe(section: str, kind: Any, error: ValidationError) -> str:
    """Describe the first fault by key, value and rule; an unknown key comes first, often the cause of a missing one."""
    errors = error.errors(include_url=False)
    fault = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    key = ".".join(_format_key(part) for part in (section, *fault["loc"]) if not UNION_MEMBER.fullmatch(str(part)))
    match fault["type"]:
        case "missing":
            return f"{key}: missing"
        case "extra_forbidden":
            *parents, last = fault["loc"]
            rule = f"unknown key{_suggest(last, _get_keys(kind, parents))}"
        case "value_error":
            rule = one_line(fault["ctx"]["error"])
        case _:
            rule = one_line(re.sub(r"^\w+ should ", "must ", fault["msg"]))
    return f"{key} = {_format_value(fault['input'])}: {rule}"


def _get_keys(kind: Any, parents: list[Any]) -> set[str]:
    """Return the keys of the model that lies in `kind` below the keys `parents`."""
    for name in parents:
        field = kind.model_fields[name].annotation
        kind = field if hasattr(field, "model_fields") else kind
    return set(kind.model_fields)


def _suggest(name: Any, known: set[str]) -> str:
    """Name the known key that is most like `name`, or all known ones if none is."""
    close = difflib.get_close_matches(_format_key(name), sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(sorted(known))}"


def _format_key(name: Any) -> str:
    """Format a key, which may be of any type and hold any character, without quotes."""
    return _format_value(name)[1:-1] if isinstance(name, str) else _format_value(name)


def _format_value(value: Any) -> str:
    """Format a value of any size in at most 100 characters."""
    text = VALUE_REPR.repr(value)
    return text if len(text) <= MAX_VALUE_CHARACTERS else f"{text[: MAX_VALUE_CHARACTERS - 3]}..."
