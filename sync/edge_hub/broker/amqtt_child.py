"""The embedded broker as a process: amqtt with our users and rules. ``python -m edge_hub.broker.amqtt_child CONFIG``.

For demos and development, where mosquitto is not installed. amqtt 0.12 as it comes lets anybody end another's
session, hands retained messages to whoever connects, sends wills to any topic, and loses a message when somebody
subscribes at the same moment; the overrides below close these holes.
"""

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path
from typing import Any

from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.session import Session

from edge_hub.broker.credentials import User, load_users
from edge_hub.broker.roles import Rule, allows, matches, rules
from edge_models.errors import ConfigError

log = logging.getLogger(__name__)


class Users:
    """The users in a credentials file, read again when the file changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen_ns = 0
        self._users: dict[str, User] = {}
        self._rules: dict[str, tuple[Rule, ...]] = {}

    def authenticate(self, name: str, password: str) -> bool:
        """Whether there is such a user with this password."""
        self._refresh()
        user = self._users.get(name)
        return user is not None and user.matches(password)

    def rules(self, name: str) -> tuple[Rule, ...]:
        """What the user may do."""
        return self._rules.get(name, ())

    def _refresh(self) -> None:
        changed_ns = self._path.stat().st_mtime_ns
        if changed_ns == self._seen_ns:
            return
        try:
            self._users = load_users(self._path)
        except ConfigError as error:
            log.error("users_unreadable", extra={"reason": str(error)})
            return
        self._rules = {name: rules(name, user.role) for name, user in self._users.items()}
        self._seen_ns = changed_ns


class RuledBroker(Broker):  # type: ignore[misc] # amqtt is not typed
    """amqtt, held to our rules: one connection a user, and nothing read or written that no rule grants."""

    def __init__(self, host: str, port: int, users: Users) -> None:
        super().__init__({"listeners": {"default": {"type": "tcp", "bind": f"{host}:{port}"}}, "plugins": {}})
        self._users = users

    async def _handle_client_session(
        self, reader: Any, writer: Any, client_session: Session, handler: Any, server: Any, listener_name: str
    ) -> None:
        """Refuse whoever may not come in before anything changes; else end the user's older connection."""
        if not self._may_come_in(client_session):
            handler.attach(client_session, reader, writer)
            await handler.mqtt_connack_authorize(False)
            await writer.close()
            return
        _, older = self.sessions.get(client_session.client_id, (None, None))
        await super()._delete_session(client_session.client_id)
        if older is not None:
            await older.handle_connection_closed()
        await super()._handle_client_session(reader, writer, client_session, handler, server, listener_name)

    def _may_come_in(self, session: Session) -> bool:
        """One must know a password, use the user's name as client id, and will only what one may write."""
        name = session.username or ""
        known = session.client_id == name and self._users.authenticate(name, session.password or "")
        return known and (not session.will_flag or allows(self._users.rules(name), "write", session.will_topic))

    async def _authenticate(self, _session: Session, _listener: Any) -> bool:
        """Done already, in `_may_come_in`."""
        return True

    async def _delete_session(self, client_id: str) -> None:
        """Nothing: amqtt asks this before it knows who asks."""

    async def _topic_filtering(self, session: Session, topic: str, action: Action) -> bool:
        """As mosquitto does: any filter may be subscribed, and delivery is what is ruled.

        Answered without suspending: amqtt's own version lets the table of subscriptions change while a message
        is being handed out, and then drops the message.
        """
        if action == Action.SUBSCRIBE:
            return True
        granted = self._users.rules(session.username or "")
        return allows(granted, "write" if action == Action.PUBLISH else "read", topic)

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        """Retained messages go to a session only for a filter of its own, and only where a rule lets it read."""
        wanted, qos = subscription
        handler = self._get_handler(session)
        own = any(subscriber is session for subscriber, _ in self.subscriptions.get(wanted, ()))
        if handler is None or not own:
            return
        granted = self._users.rules(session.username or "")
        await asyncio.gather(
            *(
                handler.mqtt_publish(kept.topic, kept.data, min(qos, kept.qos or 0), retain=True)
                for topic, kept in self.retained_messages.items()
                if matches(wanted, topic) and allows(granted, "read", topic)
            ),
            return_exceptions=True,  # a subscriber that does not acknowledge costs only itself
        )


async def serve(config: Path) -> None:
    """Run the broker that `config` describes until SIGTERM or SIGINT."""
    settings = json.loads(config.read_bytes())
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # users are read again when the file changes
    broker = RuledBroker(settings["host"], settings["port"], Users(Path(settings["credentials"])))
    await broker.start()
    await stopped.wait()
    await broker.shutdown()


def main() -> None:
    """Exit 0 after a signal, 1 with one last line where the broker can't start."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("transitions").setLevel(logging.ERROR)
    logging.getLogger("amqtt").setLevel(logging.CRITICAL)
    try:
        asyncio.run(serve(Path(sys.argv[1])))
    except Exception as error:  # noqa: BLE001 - the parent shows the last line of this process's log
        print(f"amqtt: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
