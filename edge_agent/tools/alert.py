"""`alert`: something a person must hear of at once. Its record travels in the alarm lane, before all others."""

import logging
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from edge_agent.records import Json
from edge_agent.tools.args import Args, read_args
from edge_agent.tools.base import Call, ToolContext
from edge_sync.rows import Lane

log = logging.getLogger(__name__)

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.CRITICAL}


class AlertArgs(Args):
    """Arguments of `alert`."""

    message: Annotated[str, Field(min_length=1, max_length=500)]
    severity: Literal["info", "warning", "critical"] = "warning"


class Alert:
    """Records an alert; the hub shows it."""

    idempotent = True
    lane: Lane = "alarm"

    def __init__(self, context: ToolContext) -> None:
        """Needs nothing of the site: what is recorded reaches whoever it must reach."""

    def run(self, args: Mapping[str, Json], call: Call) -> Mapping[str, Json]:
        """What to record of the alert, which is the alert. Raises `RejectedError` for wrong arguments."""
        alert = read_args(AlertArgs, args, "alert")
        log.log(
            _LEVELS[alert.severity],
            "alert",
            extra={"text": alert.message, "severity": alert.severity, "agent": call.agent, "decision": call.decision},
        )
        return {"message": alert.message, "severity": alert.severity}

    def close(self) -> None:
        """Nothing is open."""
