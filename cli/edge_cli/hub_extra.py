"""The hub's libraries are an extra: commands need them to work, not for --help."""

from collections.abc import Iterator
from contextlib import contextmanager

from edge_models.errors import ConfigError


@contextmanager
def hub_extra() -> Iterator[None]:
    """Around the imports. Raises `ConfigError` with the remedy where the extra is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(f"a hub needs the extra [hub] ({error.name}): pip install 'edge-agent-kit[hub]'") from None
