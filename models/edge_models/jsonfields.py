"""Taking a decoded JSON object apart, with one line that names the part where it is not as it must be."""

from collections.abc import Mapping
from typing import Any

from edge_models.errors import RejectedError

Kind = type | tuple[type, ...]


def object_of(value: object, what: str) -> Mapping[str, Any]:
    """`value`, if it is an object. Raises `RejectedError`."""
    if not isinstance(value, dict):
        raise RejectedError(f"contract: {what} is {type(value).__name__}, not an object")
    return value


def field(fields: Mapping[str, Any], key: str, kind: Kind) -> Any:
    """The value of a key that must be there. Raises `RejectedError`."""
    if key not in fields:
        raise RejectedError(f"contract: {key!r} is missing")
    return item(fields[key], key, kind)


def item(value: Any, key: str, kind: Kind) -> Any:
    """`value`, if it is of this kind. Raises `RejectedError`."""
    # JSON's true is an int to Python, never to a contract.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise RejectedError(f"contract: {key!r} holds {type(value).__name__}, which it must not")
    return value


def require(holds: bool, why: str) -> None:
    """A programmer's mistake where it does not hold; where it came from JSON, the reader makes it a refusal."""
    if not holds:
        raise ValueError(why)


def listed(values: frozenset[str] | tuple[str, ...]) -> str:
    """For a person."""
    return ", ".join(sorted(values))
