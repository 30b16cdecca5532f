"""Reading of YAML as DVC reads it, which uses ruamel.yaml and so the rules of YAML 1.2.

PyYAML alone follows YAML 1.1, for which `1e-3` is text, `off` is false, `010` is 8 and `1:30` is 90.
Some unusual structures that ruamel.yaml reads are refused here: lists as keys, values without a key, and in flow lists
and mappings text that begins or ends with a colon.
"""

import math
import re
from collections.abc import Hashable
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.events import CollectionEndEvent, CollectionStartEvent, DocumentStartEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from lightweight.core.errors import InputError, one_line

MAX_FILE_BYTES = 100_000  # the project's params.yaml has 8,000; reading the maximum takes a tenth of a second
MAX_VALUES = 10_000  # of one file, each alias counted as all that it stands for: nine lines can stand for 9^9 values
MAX_INTEGER_DIGITS = 100
MAX_DEPTH = (
    100  # of lists and mappings in each other; libyaml takes its nodes from the stack and crashes at some 20,000
)

TAG = "tag:yaml.org,2002:"
PLAIN_SCALARS = {  # the types whose notation differs between YAML 1.1 and 1.2: notations, possible first characters
    "bool": ("true|True|TRUE|false|False|FALSE", "tTfF"),
    "float": (
        r"[-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?"
        r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.[0-9_]+([eE][-+][0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    "int": ("[-+]?(0b[01_]+|0o[0-7_]+|[0-9_]+|0x[0-9a-fA-F_]+)", "-+0123456789"),
}
INTEGER_BASES = {"0b": 2, "0o": 8, "0x": 16}  # of digits that begin so


class Yaml12Loader(yaml.CSafeLoader):
    """Represent a loader of plain data that types scalars by YAML 1.2 and refuses a key that stands twice."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._flattened: set[MappingNode] = set()

    def construct_yaml_int(self, node: ScalarNode) -> int:
        """Construct an integer, which is octal after `0o` only, and never in base 60. Raises ValueError."""
        digits = self.construct_scalar(node).replace("_", "")
        return int(digits, INTEGER_BASES.get(digits.lstrip("+-")[:2], 10))

    def flatten_mapping(self, node: MappingNode) -> None:
        """Replace merge keys by the entries that they stand for, in place.

        Raises ConstructorError when `node` itself has two equal keys, of which PyYAML would take the last. A mapping
        that others merge comes here several times and is checked once, before it holds what it has merged itself.
        """
        own_keys = [key for key, _ in node.value if key.tag != f"{TAG}merge"]
        merge_keys = [key for key, _ in node.value if key.tag == f"{TAG}merge"]
        super().flatten_mapping(node)
        if node in self._flattened:
            return
        self._flattened.add(node)
        known = set()
        for key in own_keys:
            value = self.construct_object(key)
            if isinstance(value, Hashable):  # PyYAML refuses the others
                if value in known:
                    raise ConstructorError(None, None, f'found duplicate key "{value}"', key.start_mark)
                known.add(value)
        if len(merge_keys) > 1:
            raise ConstructorError(None, None, 'found duplicate key "<<"', merge_keys[1].start_mark)


Yaml12Loader.add_constructor(f"{TAG}int", Yaml12Loader.construct_yaml_int)
Yaml12Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.removeprefix(TAG) not in PLAIN_SCALARS]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
for kind, (notations, first_characters) in PLAIN_SCALARS.items():
    Yaml12Loader.add_implicit_resolver(f"{TAG}{kind}", re.compile(f"(?:{notations})$"), list(first_characters))


def read_yaml(path: Path) -> Any:
    """Read the one document of a UTF-8 file of at most 100,000 bytes.

    Raises InputError with one line: the file, the line where one is known, and the fault.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; run from the root of the project")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"{path}: has {path.stat().st_size:,} bytes: must be at most {MAX_FILE_BYTES:,}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None
    return parse_yaml(text, path)


def parse_yaml(text: str, source: Path | str) -> Any:
    """Parse one document, None for an empty one; `source` is what error messages call the text.

    Raises InputError when `text` is not valid YAML 1.2, or beyond the limits of this module.
    """
    try:
        _check_events(text, source)
        loader = Yaml12Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        if _count_values(root, {}) > MAX_VALUES:
            rule = f"more than {MAX_VALUES:,} values, each alias counted as all that it stands for"
            raise InputError(f"{source}: holds {rule}")
        return loader.construct_document(root)
    except InputError:
        raise
    except yaml.MarkedYAMLError as error:
        problem = ", ".join(filter(None, (error.context, error.problem)))
        raise _make_error(source, problem, error.problem_mark) from None
    except Exception as error:  # the parser raises whatever an odd text leads to
        raise _make_error(source, error) from None


def _check_events(text: str, source: Path | str) -> None:
    """Check the depth and the version before nodes are made. Raises InputError, and YAMLError for faults of syntax."""
    depth = 0
    for event in yaml.parse(text, Yaml12Loader):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _make_error(source, f"nested in more than {MAX_DEPTH} levels", event.start_mark)
        if isinstance(event, DocumentStartEvent) and event.version not in (None, (1, 2)):
            raise _make_error(source, "must be of version 1.2", event.start_mark)


def _make_error(source: Path | str, problem: object, mark: Any = None) -> InputError:
    """Make the error for a text that is not valid, with the place where one is known."""
    place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return InputError(f"{source}{place}: not valid YAML: {one_line(problem)}")


def _count_values(node: Node, known: dict[Node, float]) -> float:
    """Count the values in `node`, an alias as all that it stands for: infinitely many if that is `node` itself.

    `known` holds the counts so far. Raises ValueError for a long integer, which Python neither reads nor prints.
    """
    if node not in known:
        known[node] = math.inf
        if isinstance(node, ScalarNode) and node.tag == f"{TAG}int" and len(node.value) > MAX_INTEGER_DIGITS:
            raise ValueError(f"an integer of more than {MAX_INTEGER_DIGITS} digits")
        parts = node.value if isinstance(node, SequenceNode) else []
        parts = chain.from_iterable(node.value) if isinstance(node, MappingNode) else parts
        known[node] = 1 + sum(_count_values(part, known) for part in parts)
    return known[node]
