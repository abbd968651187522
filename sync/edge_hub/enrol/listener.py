"""The listener that sites ask: TLS on a socket of its own, a certificate asked for and not demanded, nothing kept open.

Dates are not looked at in the handshake: a site whose certificate ran out comes here to get another.
"""

import asyncio
import socket
import ssl

from uvicorn.protocols.http.h11_impl import H11Protocol

from edge_hub.enrol.authority import Authority
from edge_hub.enrol.door import Door
from edge_hub.enrol.enrolment import Enrolment
from edge_hub.enrol.est import PEER, make_est
from edge_hub.enrol.plan import EnrolPlan, in_url
from edge_hub.http_server import HttpServer
from edge_models.errors import ConfigError
from edge_sync.enrol.certificate import to_pem
from edge_sync.enrol.clockless import leave_time_out

CONNECTION_S = 30.0
"""How long a connection may last, whatever it does: a join takes one second of it."""

MAX_CONNECTIONS, MAX_OF_ONE = 200, 20
"""At once, of all and of one address."""


class _Shown(H11Protocol):
    """A connection that notes which certificate it showed, and ends in time."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own does
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self.app_state = {**self.app_state, PEER: tls.getpeercert(True)}
        self._ending = self.loop.call_later(CONNECTION_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ending.cancel()
        super().connection_lost(exc)


def bind_enrol(plan: EnrolPlan) -> socket.socket:
    """A listening socket where the plan says. Raises `ConfigError`."""
    family = socket.AF_INET6 if ":" in plan.host else socket.AF_INET
    try:
        return Door(socket.create_server((plan.host, plan.port), family=family), MAX_CONNECTIONS, MAX_OF_ONE)
    except OSError as error:
        raise ConfigError(f"--enrol {plan.host}:{plan.port}: {error.strerror}: choose another") from None


def enrol_url(plan: EnrolPlan, listening: socket.socket) -> str:
    """Where sites reach the socket, by the first of the hub's names."""
    return f"https://{in_url(plan.names[0])}:{listening.getsockname()[1]}"


class EnrolServer:
    """Serves enrolment; owns the socket from `start` on."""

    def __init__(self, enrolment: Enrolment, listening: socket.socket) -> None:
        self._enrolment = enrolment
        self._context = _context(enrolment.authority)
        self._show()
        self._http = HttpServer(
            make_est(enrolment), listening, name="enrol", tls=self._context, protocol=_Shown, most=2 * MAX_CONNECTIONS
        )

    def start(self) -> None:
        """Begin, and wait until it answers. Raises `RetryableError`."""
        self._http.start()

    def look_after(self) -> None:
        """To be asked often: connections to come are shown the newest certificate."""
        if self._enrolment.look_after():
            self._show()

    def close(self) -> None:
        """Finish what is asked and end."""
        self._http.close()

    def _show(self) -> None:
        certificate, key = self._enrolment.equipment.own
        self._context.load_cert_chain(certificate, key)


def _context(authority: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=to_pem([authority.clients.certificate, authority.root]).decode())
    context.verify_mode = ssl.CERT_OPTIONAL
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    leave_time_out(context)
    return context
