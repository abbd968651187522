"""YAML read strictly, as JSON with line numbers.

Only what JSON can say: no tags, anchors or aliases, no second document, no key twice. A plain word is true
or false only if it is ``true`` or ``false``: YAML's older rules would make ``on``, ``no`` and ``12:30``
something else than they look, which is no way to name a machine's state.
"""

import re
from typing import Any

import yaml

from edge_agent.records import Json

MAX_BYTES = 64 * 1024
"""The largest file."""

MAX_DEPTH = 16
"""The deepest nesting of lists and maps."""

Place = tuple[str | int, ...]
"""Keys and list positions that lead to a value."""


def dotted(place: Place) -> str:
    """A place as people write it: ``payload.readings[2]``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).lstrip(".")


class DocumentError(Exception):
    """The bytes are no such YAML; `line` counts from 1, 0 where no line is to blame."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


class Document:
    """A YAML document's value, and where in the file each part of it begins."""

    def __init__(self, data: bytes) -> None:
        """Raises `DocumentError`."""
        self._lines: dict[Place, int] = {}
        self.value: Json = self._json(_compose(data), ())

    def line(self, place: Place) -> int:
        """The line, from 1, of the nearest thing at or above `place`."""
        while place and place not in self._lines:
            place = place[:-1]
        return self._lines.get(place, 1)

    def _json(self, node: yaml.Node, place: Place) -> Json:
        line = node.start_mark.line + 1
        self._lines.setdefault(place, line)
        if isinstance(node, yaml.MappingNode):
            return self._map(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self._json(item, (*place, index)) for index, item in enumerate(node.value)]
        return _scalar(node)

    def _map(self, node: yaml.MappingNode, place: Place) -> dict[str, Json]:
        found: dict[str, Json] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = _scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise DocumentError("a key must be a text", line)
            if key in found:
                raise DocumentError(f"key {key!r} is there twice", line)
            self._lines[(*place, key)] = line
            found[key] = self._json(value_node, (*place, key))
        return found


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the rules of this module in place of its own for plain words."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise DocumentError("anchors and aliases are not read", event.start_mark.line + 1)
        if tag := getattr(event, "tag", None):
            raise DocumentError(f"tags are not read: {tag[:40]!r}", event.start_mark.line + 1)
        if self._depth > MAX_DEPTH:
            raise DocumentError(f"nested more than {MAX_DEPTH} deep", event.start_mark.line + 1)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"^(?:null|~|)$", ["n", "~", ""]),
    ("bool", r"^(?:true|false)$", ["t", "f"]),
    ("int", r"^-?(?:0|[1-9][0-9]*)$", list("-0123456789")),
    ("float", r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$", list("-0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def _compose(data: bytes) -> yaml.Node:
    if len(data) > MAX_BYTES:
        raise DocumentError(f"larger than {MAX_BYTES // 1024} KiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError("this is not UTF-8", data.count(b"\n", 0, error.start) + 1) from None
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise DocumentError(f"this is not YAML: {error.problem}", mark.line + 1 if mark else 0) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise DocumentError(f"this is not YAML: {error.reason}", line) from None
    except (ValueError, OverflowError):  # PyYAML on an escape such as "\UFFFFFFFF"
        raise DocumentError("this is not YAML: an escape that names no character") from None
    if node is None:
        raise DocumentError("there is nothing in it")
    return node


def _scalar(node: yaml.Node) -> Json:
    line, text = node.start_mark.line + 1, node.value
    kind = node.tag.removeprefix("tag:yaml.org,2002:")  # by this module's own patterns: no tag is written
    if kind == "null":
        return None
    if kind == "bool":
        return text == "true"
    if kind == "int":
        number = int(text) if len(text) <= 20 else 2**64
        if not -(2**63) <= number < 2**63:
            raise DocumentError("an integer of more than 64 bits", line)
        return number
    if kind == "float":
        value = float(text)
        if value in (float("inf"), float("-inf")):
            raise DocumentError(f"the number {text} is too large", line)
        return value
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise DocumentError("half a surrogate pair is no text", line)
    return text
