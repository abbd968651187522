"""Where a hub enrols, as a site file says it."""

from urllib.parse import urlsplit

DEFAULT_PORT = 8443


def enrol_address(url: str) -> tuple[str, int]:
    """Host and port of ``https://HOST:8443``. Raises `ValueError` saying what would be right."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{error}: write https://HOST:{DEFAULT_PORT}") from None
    if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise ValueError(f"write https://HOST:{DEFAULT_PORT}, nothing after it")
    try:
        parts.hostname.encode("idna")
    except UnicodeError:
        raise ValueError(f"{parts.hostname!r} is no name of a host") from None
    return parts.hostname, port or DEFAULT_PORT
