"""Whether the broker on a port is ours and ready: an MQTT connection of a user that only our broker knows."""

import socket

CONNACK_ACCEPTED = b"\x20\x02\x00\x00"


def accepts(port: int, user: str, password: str, timeout_s: float = 1.0) -> bool:
    """Whether the broker on this port of this machine lets the user in."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
            connection.sendall(connect_packet(user, password))
            answer = connection.recv(4)
            connection.sendall(b"\xe0\x00")  # DISCONNECT
    except OSError:
        return False
    return answer == CONNACK_ACCEPTED


def connect_packet(user: str, password: str) -> bytes:
    """An MQTT 3.1.1 CONNECT with a clean session. Source: MQTT 3.1.1 section 3.1."""
    body = _text("MQTT") + bytes([4, 0b1100_0010]) + (10).to_bytes(2, "big")
    body += _text(user) + _text(user) + _text(password)
    if len(body) > 127:
        return bytes([0x10, len(body) & 0x7F | 0x80, len(body) >> 7]) + body
    return bytes([0x10, len(body)]) + body


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data
