"""A tool's arguments, checked: a policy's author reads which one is wrong and what would be right."""

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from edge_agent.records import Json
from edge_models.errors import ConfigError, RejectedError
from edge_sync.yamlfile import validate


class Args(BaseModel):
    """Base of a tool's arguments: none unknown, none converted from another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


A = TypeVar("A", bound=Args)


def read_args(kind: type[A], args: Mapping[str, Json], tool: str) -> A:
    """`args` as a `kind`. Raises `RejectedError`: the tool, the argument, and what would be right."""
    try:
        return validate(kind, args, tool)
    except ConfigError as error:
        raise RejectedError(str(error)) from None
