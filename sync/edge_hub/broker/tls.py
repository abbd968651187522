"""The listener for sites elsewhere: TLS both ways. Who may come in is said by a certificate, and its CN is the user."""

from dataclasses import dataclass
from pathlib import Path

from edge_models.errors import ConfigError

CERTIFICATE, KEY, CLIENTS, REVOKED = "server.pem", "server.key", "clients.pem", "revoked.pem"


@dataclass(frozen=True, slots=True)
class TlsListener:
    """Where it listens; what it shows and whom it believes lies in `folder`."""

    host: str
    port: int
    folder: Path

    @property
    def certificate(self) -> Path:
        """The broker's certificate, with the intermediates below its root, PEM."""
        return self.folder / CERTIFICATE

    @property
    def key(self) -> Path:
        """The certificate's private key, PEM, for the broker's eyes only."""
        return self.folder / KEY

    @property
    def clients(self) -> Path:
        """The authorities that issue the sites' certificates, PEM, up to their root."""
        return self.folder / CLIENTS

    @property
    def revoked(self) -> Path:
        """The list of certificates that no longer count, PEM. Read again whenever the broker reads its users again.

        It is never left out: a broker that starts without it would let a thief in, so an empty one has to be there.
        OpenSSL refuses every client once the list is older than it says it is good for.
        """
        return self.folder / REVOKED

    def check(self) -> None:
        """Raises `ConfigError` that names the first file that is missing or can't be read."""
        for path in (self.certificate, self.key, self.clients, self.revoked):
            try:
                path.read_bytes()
            except OSError as error:
                raise ConfigError(f"broker TLS file {path}: {error.strerror}") from None
