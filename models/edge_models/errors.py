"""The kit's errors, one small tree, in the lowest room so that every room can raise them.

Errors carry data, know no transport and never log. The command line maps the class to an exit code.
"""


class KitError(Exception):
    """Something a user, a file or a peer did that the kit refuses; `str()` is one line for a person."""


class ConfigError(KitError):
    """A file or an option is wrong: names the file, the key, and what would be right."""


class RejectedError(KitError):
    """Final: a bad signature, hash, schema, size or generation. Trying again will not help."""


class RetryableError(KitError):
    """Not now: the peer is away or busy. `retry_after_s` says when to try again."""

    def __init__(self, message: str, retry_after_s: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
