"""YAML files people write, read into a pydantic model: one clear line for whatever is wrong with one."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from edge_models.errors import ConfigError

MAX_FILE_BYTES = 1024 * 1024

M = TypeVar("M", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """The safe loader, but a key that stands twice in a mapping is an error, not a silent overwrite."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key in seen and key != "<<":
                raise yaml.MarkedYAMLError(problem=f"key {key!r} stands twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_yaml(path: Path, kind: type[M]) -> M:
    """The file as a `kind`. Raises `ConfigError`: file, key, and what would be right."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    return parse_yaml(data, kind, path.name)


def parse_yaml(data: bytes, kind: type[M], name: str) -> M:
    """`data` as a `kind`; `name` is what errors call the file. Raises `ConfigError`."""
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{name}: {len(data)} bytes, the most is {MAX_FILE_BYTES}")
    try:
        value = yaml.load(data, _Loader)  # noqa: S506 - a subclass of the safe loader
    except yaml.MarkedYAMLError as error:
        at = f": line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{name}{at}: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: no YAML: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{name}: wanted keys and values, found {type(value).__name__}")
    return validate(kind, value, name)


def validate(kind: type[M], mapping: Mapping[str, Any], where: str) -> M:
    """`mapping` as a `kind`; `where` is what errors call the place.

    Raises `ConfigError`: the place, the key, and what would be right.
    """
    try:
        return kind.model_validate(mapping)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_first_problem(error, kind)}") from None


def _first_problem(error: ValidationError, kind: type[BaseModel]) -> str:
    """One of the errors, as `key.path: what is wrong`, with the nearest right key where one is unknown.

    An unknown key comes first: it is often a misspelling of the very key that is then missing.
    """
    errors = error.errors(include_url=False)
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _keys_at(kind, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        right = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}"
        return f"unknown key {where!r} ({right})"
    if first["type"] == "missing":
        return f"key {where!r} is missing"
    came = "" if isinstance(first["input"], dict | list) else f" (came {first['input']!r})"
    return f"{where}: {first['msg'].removeprefix('Value error, ')}{came}"


def _keys_at(kind: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys that are known at this place of the model."""
    current: Any = kind
    for part in loc:
        if part not in current.model_fields:  # an item of a list, or a key of a dict
            continue
        annotation = current.model_fields[part].annotation
        models = [a for a in (annotation, *getattr(annotation, "__args__", ())) if _is_model(a)]
        if not models:
            return []
        current = models[0]
    return list(current.model_fields)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
