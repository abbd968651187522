"""The operator's signing keys: made as encrypted files, or held by a device or a key service, and named by a URI.

    encfile:keys/targets-1.pem   ed25519, PKCS#8 PEM under a passphrase, mode 0600; made here
    file2:keys/targets-1.pem     the same without a passphrase
    hsm: awskms: gcpkms: azurekms: hv: tkey:   as securesystemslib has them

A file's path begins at the operator's folder. A key that does not lie there is looked for by its name on other media.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from securesystemslib.exceptions import KeyMismatchError, UnsupportedLibraryError
from securesystemslib.signer import (
    SIGNER_FOR_URI_SCHEME,
    CryptoSigner,
    Key,
    SecretsHandler,
    Signer,
    SSlibKey,
)

from edge_models.errors import ConfigError
from edge_sync.trust.sealing import seal

Secrets = Callable[[str], str | None]
"""A key's name (its file's name, or its URI) → its passphrase or PIN; None where it has, or is to have, none."""

NEW = " (new)"
"""Ends the name of a key that is about to be made."""

ENCRYPTED, PLAIN = "encfile", CryptoSigner.SCHEME
FILES = (ENCRYPTED, PLAIN)

_EXTRAS = {"hsm": "hsm", "awskms": "awskms", "gcpkms": "gcpkms", "azurekms": "azurekms", "hv": "vault", "tkey": "tkey"}
"""Scheme → what pip installs for it."""


class EncryptedFileSigner(CryptoSigner):
    """A key in a PEM file under a passphrase, which the secrets handler is asked for by the file's name."""

    SCHEME = ENCRYPTED

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> CryptoSigner:
        """Raises `OSError`, `KeyMismatchError`, and `ValueError` or `TypeError` where the passphrase does not fit."""
        path = Path(priv_key_uri.partition(":")[2])
        if secrets_handler is None or not isinstance(public_key, SSlibKey):
            raise ValueError("wants a passphrase and a public key")
        data = path.read_bytes()
        return CryptoSigner(load_pem_private_key(data, secrets_handler(path.name).encode()), public_key)


SIGNER_FOR_URI_SCHEME[ENCRYPTED] = EncryptedFileSigner


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Where keys are looked for, and who knows their secrets."""

    folder: Path
    secrets: Secrets
    media: Sequence[Path] = ()
    made: list[Path] = field(default_factory=list)
    """Key files that `make` wrote: of no use where the change that wanted them came to nothing."""

    def make(self, role: str, taken: Iterable[str] = ()) -> tuple[str, SSlibKey]:
        """A new ed25519 key in a new file ``keys/ROLE-N.pem``, durable when this returns: its URI and public half.

        `taken`: URIs of keys that may lie elsewhere, and keep their names. Raises `ConfigError`.
        """
        path = _free(self.folder / "keys", role, {Path(uri).name for uri in taken})
        passphrase = self.secrets(path.name + NEW)
        signer = CryptoSigner.generate_ed25519()
        pem = signer.private_bytes if passphrase is None else seal(signer.private_bytes, _encoded(passphrase, path))
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            self.made.append(path)
        except OSError as error:
            raise ConfigError(f"key {path}: {error.strerror}") from None
        return f"{PLAIN if passphrase is None else ENCRYPTED}:keys/{path.name}", signer.public_key

    def load(self, uri: str, public: Key) -> Signer:
        """The signer for the private half of `public`.

        Raises `ConfigError` with the file or URI and the remedy.
        """
        located = self._located(uri)
        try:
            if uri.startswith(f"{PLAIN}:") and isinstance(public, SSlibKey):
                # securesystemslib's own loader takes the path for a URL's, and cuts it at # and ?
                return CryptoSigner(load_pem_private_key(Path(located.partition(":")[2]).read_bytes(), None), public)
            return Signer.from_priv_key_uri(located, public, self._ask(uri))
        except KeyMismatchError:
            raise ConfigError(f"key {uri}: is another key than the {public.keyid[:12]} that is wanted") from None
        except Exception as error:  # noqa: BLE001 - devices and services raise what they like
            raise _readable(uri, error) from None

    def find(self, uri: str) -> tuple[str, SSlibKey]:
        """The public half of a key that exists, and its URI in full. Raises `ConfigError`."""
        scheme, _, rest = uri.partition(":")
        try:
            if scheme in FILES:
                path = Path(self._located(uri).partition(":")[2])
                secret = self._ask(uri)(path.name).encode() if scheme == ENCRYPTED else None
                private: Any = load_pem_private_key(path.read_bytes(), secret)
                return uri, SSlibKey.from_crypto(private.public_key())
            if scheme not in _EXTRAS:
                raise ValueError(f"no scheme this kit signs with: use {', '.join((*FILES, *_EXTRAS))}")
            found: tuple[str, SSlibKey] = SIGNER_FOR_URI_SCHEME[scheme].import_(  # type: ignore[attr-defined]
                *_import_words(scheme, rest, self._ask(uri))
            )
        except Exception as error:  # noqa: BLE001 - as above
            raise _readable(uri, error) from None
        return found

    def is_here(self, uri: str) -> bool | None:
        """Whether the key's file lies here or on the media; None where it is no file."""
        return Path(self._located(uri).partition(":")[2]).exists() if uri.partition(":")[0] in FILES else None

    def _located(self, uri: str) -> str:
        """The URI with the path at which its file is, or should be."""
        scheme, _, rest = uri.partition(":")
        if scheme not in FILES:
            return uri
        wanted = (self.folder / rest).absolute()
        places = [wanted, *(medium.absolute() / wanted.name for medium in self.media)]
        return f"{scheme}:{next((place for place in places if place.exists()), wanted)}"

    def _ask(self, uri: str) -> SecretsHandler:
        scheme, _, rest = uri.partition(":")
        name = Path(rest).name if scheme in FILES else uri

        def ask(_: str) -> str:
            if (secret := self.secrets(name)) is None:
                raise ConfigError(f"key {uri}: wants a passphrase or PIN, and none was given")
            return secret

        return ask


def public_from(text: str) -> SSlibKey:
    """A public key: 64 hex digits are ed25519, anything else a PEM file's path. Raises `ConfigError`."""
    try:
        if len(text) == 64 and all(digit in "0123456789abcdefABCDEF" for digit in text):
            return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(text)))
        return SSlibKey.from_crypto(load_pem_public_key(Path(text).read_bytes()))
    except OSError as error:
        raise ConfigError(f"public key {text}: {error.strerror}; wanted a PEM file or 64 hex digits") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"public key {text}: is no public key in PEM that can sign") from None


def _import_words(scheme: str, rest: str, ask: SecretsHandler) -> tuple[Any, ...]:
    """What the signer's `import_` takes, from a URI as `from_priv_key_uri` takes it."""
    parts = urlsplit(f"{scheme}:{rest}")
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    if scheme == "hsm":
        return (int(parts.path) if parts.path else None, query.get("label"), ask)
    if scheme == "azurekms":
        kind, _, name = unquote(parts.path).strip("/").partition("/")
        if kind != "keys" or not name or not parts.hostname:
            raise ValueError("write azurekms://VAULT.vault.azure.net/keys/NAME")
        return (parts.hostname.partition(".")[0], name.partition("/")[0])
    if scheme == "tkey":
        secret = ask("passphrase") if query.get("passphrase") == "true" else None
        return (query.get("digest"), parts.path or None, secret)
    return (rest.partition("/")[0] if scheme == "hv" else rest,)


def _free(folder: Path, role: str, taken: set[str]) -> Path:
    number = 1
    while (path := folder / f"{role}-{number}.pem").exists() or path.name in taken:
        number += 1
    return path


def _encoded(passphrase: str, path: Path) -> bytes:
    if not passphrase:
        raise ConfigError(f"key {path}: an empty passphrase protects nothing")
    return passphrase.encode()


def _readable(uri: str, error: Exception) -> ConfigError:
    scheme = uri.partition(":")[0]
    if isinstance(error, ConfigError):
        return error
    if isinstance(error, FileNotFoundError):
        return ConfigError(f"key {uri}: no such file; if it lies on other media, give its folder with --keys")
    if isinstance(error, OSError) and scheme in FILES:
        return ConfigError(f"key {uri}: {error.strerror}")
    if isinstance(error, UnsupportedLibraryError):
        extra = _EXTRAS.get(scheme, scheme)
        return ConfigError(f"key {uri}: {error}: pip install 'securesystemslib[{extra}]'")
    if scheme == ENCRYPTED and isinstance(error, (ValueError, TypeError)):
        known = {"Incorrect password, could not decrypt key": "the passphrase is wrong"}
        plain = "is not encrypted: write file2: in signers.json, or encrypt it"
        other = "is no private key in PEM" if isinstance(error, ValueError) else plain
        return ConfigError(f"key {uri}: {known.get(str(error), other)}")
    if scheme == PLAIN and isinstance(error, TypeError):
        return ConfigError(f"key {uri}: is encrypted: write encfile: for it")
    return ConfigError(f"key {uri}: {type(error).__name__}: {error}")
