"""A listening socket that lets in so many at once, of one address and of all, before anything is spent on them.

A connection costs its server a file descriptor from the first packet on, long before TLS is agreed: who only opens them
must not leave the hub's database without.
"""

import socket
from weakref import WeakSet

from edge_hub.enrol.rate import address_key


class Door(socket.socket):
    """Takes over a listening socket. Whoever comes when it is full is hung up on."""

    def __init__(self, listening: socket.socket, most: int, most_of_one: int) -> None:
        super().__init__(listening.family, listening.type, listening.proto, fileno=listening.detach())
        self._most, self._most_of_one = most, most_of_one
        self._inside: WeakSet[_Guest] = WeakSet()

    def accept(self) -> "tuple[socket.socket, object]":
        """The next connection. Raises `ConnectionAbortedError` where it was one too many, `OSError` as sockets do."""
        fd, address = self._accept()  # type: ignore[attr-defined] # what `socket.accept` itself is made of
        guest = _Guest(self.family, self.type, self.proto, fileno=fd)
        guest.of = address_key(str(address[0]))
        guest.setblocking(False)
        inside = [each.of for each in self._inside if each.fileno() != -1]
        if len(inside) >= self._most or inside.count(guest.of) >= self._most_of_one:
            guest.close()
            raise ConnectionAbortedError("too many connections")
        self._inside.add(guest)
        return guest, address


class _Guest(socket.socket):
    """A connection, and whose it is."""

    of: str
