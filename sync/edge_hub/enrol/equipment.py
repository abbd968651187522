"""What the hub's servers show and believe: the files of the broker's TLS listener, and the enrolment listener's own.

Kept good without anybody: a server's certificate is made anew at a third of its life, the list of revoked ones daily.
Files that another authority made are the operator's, and stay as they are.
"""

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from edge_hub.broker.tls import CERTIFICATE, CLIENTS, KEY, REVOKED
from edge_hub.enrol.authority import Authority, moment, private_pem, read_private
from edge_hub.enrol.ledger import Ledger
from edge_hub.enrol.making import CRL_DAYS, server_names
from edge_hub.files import make_private, write_private
from edge_models.errors import RejectedError
from edge_sync.enrol.certificate import BACKDATED_S, issued_by, key_of, load_pem

LIST_DAYS = 1
"""A list of revoked certificates that is older is made anew."""


class Equipment:
    """The files of two servers, which are reached under `names`."""

    def __init__(self, authority: Authority, ledger: Ledger, broker: Path, own: Path, names: tuple[str, ...]) -> None:
        """`broker`: where its TLS listener's files lie; `own`: where those of the enrolment listener do."""
        self._authority, self._ledger, self._names = authority, ledger, names
        self._broker, self._own = broker, own
        self._lock = threading.Lock()

    @property
    def own(self) -> tuple[Path, Path]:
        """Certificate and key of the enrolment listener."""
        return self._own / CERTIFICATE, self._own / KEY

    def foreign(self) -> list[Path]:
        """Files in the broker's folder that another authority made."""
        tests: dict[str, Callable[[Path], bool]] = {
            CERTIFICATE: self._issued_here,
            CLIENTS: self._believes_us,
            REVOKED: lambda path: self._list(path) is not None,
        }
        found = [self._broker / name for name, ours in tests.items()]
        return [path for path in found if path.exists() and not tests[path.name](path)]

    def dropped(self) -> list[str]:
        """Names that the enrolment listener has been reached under, and will not be any more after `refresh`."""
        try:
            shown = load_pem((self._own / CERTIFICATE).read_bytes())[0]
            return sorted(set(server_names(shown)) - set(self._names))
        except (OSError, RejectedError, x509.ExtensionNotFound, ValueError):
            return []

    def refresh(self, now_us: int) -> bool:
        """Make what is missing, old or out of date; whether anything of the broker's changed.

        Raises `ConfigError` for a file that is damaged, `OSError` where the disk refuses.
        """
        with self._lock:
            return self._refresh(now_us)

    def _refresh(self, now_us: int) -> bool:
        for folder in (self._broker, self._own):
            make_private(folder)
        foreign = {path.name for path in self.foreign()}
        changed = False
        if CERTIFICATE not in foreign:
            changed = self._serve(self._broker, now_us)
        clients = self._broker / CLIENTS
        if CLIENTS not in foreign and (not clients.exists() or clients.read_bytes() != self._authority.clients_pem):
            write_private(clients, self._authority.clients_pem)
            changed = True
        if REVOKED not in foreign and self._is_old(self._broker / REVOKED, now_us):
            revoked = {each.serial: each.at_us for each in self._ledger.revoked().values()}
            write_private(self._broker / REVOKED, self._authority.revoked_pem(revoked, now_us))
            changed = True
        self._serve(self._own, now_us)
        return changed

    def _serve(self, folder: Path, now_us: int) -> bool:
        """A server's certificate is there, good and under our names. Its key is made once and stays."""
        path, key_path = folder / CERTIFICATE, folder / KEY
        if not key_path.exists():
            write_private(key_path, private_pem(ec.generate_private_key(ec.SECP256R1())))
        key = key_of(read_private(key_path).public_key())
        if path.exists() and self._is_good(path, key, now_us):
            return False
        write_private(path, self._authority.issue_server(self._names, key, now_us))
        return True

    def _is_good(self, path: Path, key: bytes, now_us: int) -> bool:
        try:
            shown, *above = load_pem(path.read_bytes())
            public, names = shown.public_key(), server_names(shown)
        except (RejectedError, x509.ExtensionNotFound, ValueError):
            return False
        if above != [self._authority.servers.certificate]:  # that was renewed
            return False
        made = shown.not_valid_before_utc + timedelta(seconds=BACKDATED_S)
        due = made + (shown.not_valid_after_utc - made) / 3
        ours = isinstance(public, ec.EllipticCurvePublicKey) and key_of(public) == key
        return (
            ours and names == set(self._names) and made <= moment(now_us) + timedelta(days=1) and moment(now_us) < due
        )

    def _believes_us(self, path: Path) -> bool:
        """Whether this file names our authority for sites, be it by a certificate that was renewed since."""
        try:
            clients, *above = load_pem(path.read_bytes())
        except RejectedError:
            return False
        ours = self._authority
        return above == [ours.root] and clients.public_key() == ours.clients.key.public_key()

    def _issued_here(self, path: Path) -> bool:
        try:
            return issued_by(load_pem(path.read_bytes())[0], self._authority.servers.certificate)
        except RejectedError:
            return False

    def _list(self, path: Path) -> x509.CertificateRevocationList | None:
        """The list in this file, if our authority signed it."""
        try:
            found = x509.load_pem_x509_crl(path.read_bytes())
        except (ValueError, OSError):
            return None
        return found if found.is_signature_valid(self._authority.clients.key.public_key()) else None

    def _is_old(self, path: Path, now_us: int) -> bool:
        found = self._list(path)
        if found is None or found.next_update_utc is None:
            return True
        left = found.next_update_utc - moment(now_us)
        if not timedelta(days=CRL_DAYS - LIST_DAYS) < left <= timedelta(days=CRL_DAYS):  # or of a clock that was wrong
            return True
        return {f"{each.serial_number:x}" for each in found} != set(self._ledger.revoked())
