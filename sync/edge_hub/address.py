"""HOST:PORT on the command line."""

from edge_models.errors import ConfigError


def host_and_port(option: str, text: str, example: str) -> tuple[str, int]:
    """The two parts of what `option` was given; port 0 is any. Raises `ConfigError` that shows the example."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ConfigError(f"{option} {text!r}: write HOST:PORT, as in {example}")
    return host, int(port)
