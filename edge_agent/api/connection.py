"""A connection to the local API: one thread that reads, and sends what the conversation says.

A thread waits in one system call for the next request and answers it there; an event loop would spend longer on handing
it over than a small model takes.
"""

import contextlib
import socket
import struct
import time
from collections.abc import Callable

from edge_agent.api.conversation import Conversation, Shared

_READ_BYTES = 64 * 1024

_LINGER_S = 1.0
"""Between the last answer and the end of a connection whose client may still send: closing at once may destroy it."""

_AT_LEAST_S = 0.001
"""A time limit of nothing would be none."""


class Connection:
    """Serves one client, in the thread that calls `serve`."""

    def __init__(self, sock: socket.socket, shared: Shared) -> None:
        self._sock = sock
        self._conversation = Conversation(shared)
        self._stalled_s = shared.limits.stalled_timeout_s
        self._wait_s = 0.0

    @property
    def silent(self) -> bool:
        """Whether its client has not asked for anything yet, and still may."""
        return self._conversation.silent and not self.over

    @property
    def over(self) -> bool:
        """Whether nothing more is answered."""
        return self._conversation.over

    def serve(self) -> None:
        """Answer the client until one of the two ends it."""
        self._until_over(self._talk)

    def turn_away(self, status: int, message: str) -> None:
        """Answer nothing but this."""
        self._until_over(lambda: self._send(self._conversation.refuse(status, message)))

    def finish(self) -> None:
        """End after the answer that is being made. May be called by another thread."""
        self._conversation.finish()
        with contextlib.suppress(OSError):  # it has ended meanwhile
            self._sock.shutdown(socket.SHUT_RD)

    def abort(self) -> None:
        """End now. May be called by another thread."""
        with contextlib.suppress(OSError):  # it has ended meanwhile
            self._sock.shutdown(socket.SHUT_RDWR)

    def _until_over(self, talk: Callable[[], None]) -> None:
        try:
            # An answer is one write: waiting for more of it would only delay it.
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _limit(self._sock, socket.SO_SNDTIMEO, self._stalled_s)
            talk()
            if self._conversation.over:
                self._linger()
        except OSError:
            pass  # the client is gone, or does not take what it asked for
        finally:
            self._conversation.close()
            self._sock.close()

    def _talk(self) -> None:
        conversation = self._conversation
        while not conversation.over:
            wait_s = conversation.due - time.monotonic()
            if wait_s <= 0:
                self._send(conversation.expire())
                continue
            try:
                data = self._read(wait_s)
            except BlockingIOError:
                continue
            if not data:
                return
            for answer in conversation.receive(data):
                self._send(answer)

    def _read(self, wait_s: float) -> bytes:
        """What comes within this time, or sooner. Raises `BlockingIOError` where nothing does.

        The socket's own time limit needs no call that waits, and is set anew only where it is well off: a limit that is
        too short only has its caller look at the clock again.
        """
        if not wait_s / 4 < self._wait_s < wait_s * 1.05:
            _limit(self._sock, socket.SO_RCVTIMEO, wait_s)
            self._wait_s = wait_s
        return self._sock.recv(_READ_BYTES)

    def _send(self, answer: bytes) -> None:
        """Send all of it. Raises `OSError` where the client does not take it in time."""
        sent = self._sock.send(answer) if answer else 0
        deadline = time.monotonic() + self._stalled_s if sent < len(answer) else 0.0
        while sent < len(answer):
            if time.monotonic() > deadline:
                raise TimeoutError
            sent += self._sock.send(memoryview(answer)[sent:])

    def _linger(self) -> None:
        """Send nothing more, throw away what comes, and end when the client does, or soon."""
        self._sock.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + _LINGER_S
        while (left_s := deadline - time.monotonic()) > 0 and self._read(left_s):
            pass


def _limit(sock: socket.socket, which: int, seconds: float) -> None:
    """Let a call on a socket that blocks take this long."""
    whole, part = divmod(max(seconds, _AT_LEAST_S), 1)
    sock.setsockopt(socket.SOL_SOCKET, which, struct.pack("@ll", int(whole), int(part * 1e6)))
