"""Ending the sessions of users who may not go on: another connection takes their client id, and goes again."""

import time
from collections.abc import Sequence

from edge_hub.broker.folder import BrokerFolder
from edge_hub.broker.probe import accepts
from edge_hub.broker.roles import Role
from edge_hub.broker.running import find_running
from edge_models.errors import RetryableError

WAIT_S = 20.0
"""How long a broker may take to have read its users again."""


def eject(folder: BrokerFolder, names: Sequence[str]) -> None:
    """End these users' sessions; users there are afterwards as before. Meanwhile they may say their will, nothing else.

    Raises `RetryableError` where the broker does not let the other connection in: a session may live on.
    """
    if not names or find_running(folder.path) is None:
        return
    role: Role = "ejected"
    passwords = folder.change(passwords=dict.fromkeys(names, role))
    deadline = time.monotonic() + WAIT_S
    try:
        for name, password in passwords.items():
            while (running := find_running(folder.path)) is not None and not accepts(running.port, name, password):
                if time.monotonic() > deadline:
                    raise RetryableError(f"the broker did not end the session of {name} in {WAIT_S:.0f} s")
                time.sleep(0.02)
    finally:
        folder.put_back(names)
