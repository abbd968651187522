"""The authority's folder: a root, and below it the keys that sign for sites and for servers. Made once, then opened.

To serve, `root.key` is not needed: whoever takes it away keeps the one key that could found another hub of this name.
"""

import os
import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge_hub.enrol.making import Issuer, make_below, make_root, revocation_list, server_certificate, site_certificate
from edge_hub.files import make_private, write_private
from edge_models.durable import sync
from edge_models.errors import ConfigError, RejectedError
from edge_sync.enrol.certificate import fingerprint, issued_by, load_pem, to_pem, to_us

ROOT, CLIENTS, SERVERS = "root", "clients", "servers"

_BORN_US = 1_735_689_600_000_000
"""2025-01-01. A clock before that is not set: an authority that it dates would have ended before it began."""


class Authority:
    """Issues, and says what no longer counts. The folder is for the hub's own user only, mode 0700."""

    def __init__(self, path: Path) -> None:
        """Opens it. Raises `ConfigError` that names the file which is missing or wrong."""
        self.path = path.resolve()
        self.root = _certificate(path / f"{ROOT}.pem")
        self.clients = _issuer(path, CLIENTS, self.root)
        self.servers = _issuer(path, SERVERS, self.root)

    @property
    def pin(self) -> str:
        """What tokens name the root by."""
        return fingerprint(self.root)

    @property
    def ends_us(self) -> int:
        """When the first of the two below the root ends: nothing that they sign lasts longer."""
        return min(to_us(each.certificate.not_valid_after_utc) for each in (self.clients, self.servers))

    @property
    def root_pem(self) -> bytes:
        """The root, PEM."""
        return to_pem([self.root])

    @property
    def all(self) -> list[x509.Certificate]:
        """The root and both below it."""
        return [self.root, self.clients.certificate, self.servers.certificate]

    @property
    def clients_pem(self) -> bytes:
        """The authority of sites and the root, PEM: what a broker believes."""
        return to_pem([self.clients.certificate, self.root])

    def issue_site(self, site: str, key: bytes, now_us: int) -> x509.Certificate:
        """A certificate for a site's public key, DER SubjectPublicKeyInfo."""
        return site_certificate(self.clients, site, key, moment(now_us))

    def issue_server(self, names: tuple[str, ...], key: bytes, now_us: int) -> bytes:
        """A certificate for a server's public key and what leads up to the root, PEM."""
        made = server_certificate(self.servers, names, key, moment(now_us))
        return to_pem([made, self.servers.certificate])

    def revoked_pem(self, revoked: dict[str, int], now_us: int) -> bytes:
        """The list of serials of sites (hex → since when, µs) that no longer count, PEM."""
        return revocation_list(self.clients, revoked.items(), moment(now_us))


def make_authority(path: Path, now_us: int) -> Authority:
    """A new authority at `path`, which is new or empty: whole, durable, or not there. Raises `ConfigError`."""
    if now_us < _BORN_US:
        raise ConfigError(f"this machine's clock says {moment(now_us):%Y-%m-%d}: set it before an authority is made")
    if is_there(path):
        raise ConfigError(f"{path} is not empty: an authority is made in a new folder, once")
    path = path.absolute()
    staging = path.parent / f".{path.name}.{secrets.token_hex(4)}.partial"
    now = moment(now_us)
    root = make_root(secrets.token_hex(4), now)
    below = {name: make_below(root, name, now) for name in (CLIENTS, SERVERS)}
    try:
        make_private(staging)
        for name, issuer in {ROOT: root, **below}.items():
            write_private(staging / f"{name}.key", private_pem(issuer.key))
            write_private(staging / f"{name}.pem", to_pem([issuer.certificate]))
        staging.rename(path)
        sync(path.parent)
    except OSError as error:
        raise ConfigError(f"authority {path}: {error.strerror}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Authority(path)


def is_there(path: Path) -> bool:
    """Whether anything lies there. Raises `ConfigError` where that can't be seen."""
    try:
        return path.is_dir() and any(path.iterdir()) if path.is_dir() else os.path.lexists(path)
    except OSError as error:
        raise ConfigError(f"authority {path}: {error.strerror}") from None


def moment(at_us: int) -> datetime:
    """UTC microseconds as certificates have them: whole seconds."""
    return datetime.fromtimestamp(at_us // 1_000_000, UTC)


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Unencrypted PKCS#8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_private(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key in this file. Raises `ConfigError`."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ConfigError(f"key {path}: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"key {path}: is no unencrypted elliptic curve key in PEM")
    return key


def _certificate(path: Path) -> x509.Certificate:
    try:
        return load_pem(path.read_bytes())[0]
    except OSError as error:
        raise ConfigError(f"authority: {path}: {error.strerror}") from None
    except RejectedError as error:
        raise ConfigError(f"authority: {path}: {error}") from None


def _issuer(folder: Path, name: str, root: x509.Certificate) -> Issuer:
    path = folder / f"{name}.pem"
    found = Issuer(_certificate(path), read_private(folder / f"{name}.key"))
    if not issued_by(found.certificate, root):
        raise ConfigError(f"authority: {path} was not signed by {folder / ROOT}.pem")
    if found.certificate.public_key() != found.key.public_key():
        raise ConfigError(f"authority: {path} is not of the key beside it")
    return found
