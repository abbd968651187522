"""`fact.set`: remember something at this site until it is changed; policies see it as ``facts``."""

import json
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from edge_agent.records import Json
from edge_agent.tools.args import Args, read_args
from edge_agent.tools.base import Call, SetFact, ToolContext
from edge_models.errors import RejectedError
from edge_sync.rows import Lane

MAX_VALUE_BYTES = 16 * 1024
"""Of a fact as JSON: every decision's record holds the facts it was made with."""


class FactSetArgs(Args):
    """Arguments of `fact.set`."""

    key: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,127}$")]
    value: Json
    expires_s: Annotated[float, Field(gt=0, le=366 * 86_400)] | None = None
    """Left out: until it is changed."""


class FactSet:
    """Sets a fact of this site. Setting it twice is setting it once."""

    idempotent = True
    lane: Lane = "decision"

    def __init__(self, context: ToolContext) -> None:
        self._set_fact, self._now_us = context.set_fact, context.now_us

    def run(self, args: Mapping[str, Json], call: Call) -> Mapping[str, Json]:
        """Set the fact, durably. Raises `RejectedError` for wrong arguments."""
        wanted = read_args(FactSetArgs, args, "fact.set")
        try:
            size_bytes = len(json.dumps(wanted.value, separators=(",", ":"), allow_nan=False))  # as memory writes it
        except (TypeError, ValueError, RecursionError) as error:
            raise RejectedError(f"fact.set: value: no JSON: {error}") from None
        if size_bytes > MAX_VALUE_BYTES:
            raise RejectedError(f"fact.set: value: {size_bytes} bytes as JSON, the most is {MAX_VALUE_BYTES}")
        expires_at_us = None if wanted.expires_s is None else self._now_us() + round(wanted.expires_s * 1e6)
        self._set_fact(SetFact(wanted.key, wanted.value, expires_at_us), call)
        return {"key": wanted.key, "value": wanted.value, "expires_at_us": expires_at_us}

    def close(self) -> None:
        """Nothing is open."""
