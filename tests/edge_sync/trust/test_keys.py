"""Key files: encrypted, never over one that is there; what is wrong with a key is said in one line with the remedy."""

import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.signer import CryptoSigner

from edge_models.errors import ConfigError
from edge_sync.trust.keys import KeyRing, Secrets, public_from


def knows(passphrase: str | None) -> Secrets:
    return lambda name: passphrase


def test_a_key_file_is_encrypted_private_and_signs(tmp_path: Path) -> None:
    asked: list[str] = []

    def secrets(name: str) -> str:
        asked.append(name)
        return "correct horse"

    ring = KeyRing(tmp_path, secrets)
    uri, public = ring.make("models")
    assert uri == "encfile:keys/models-1.pem"
    file = tmp_path / "keys" / "models-1.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    signature = ring.load(uri, public).sign(b"what may run")
    public.verify_signature(signature, b"what may run")
    assert asked == ["models-1.pem (new)", "models-1.pem"]


def test_openssl_reads_it_and_takes_scrypt_to_do_so(tmp_path: Path) -> None:
    KeyRing(tmp_path, knows("correct horse")).make("root")
    file = str(tmp_path / "keys" / "root-1.pem")
    shown = ["openssl", "pkey", "-in", file, "-passin", "pass:correct horse", "-noout", "-text"]
    opened = subprocess.run(shown, capture_output=True, check=False)
    assert b"ED25519 Private-Key" in opened.stdout, opened.stderr
    assert b":scrypt" in subprocess.run(["openssl", "asn1parse", "-in", file], capture_output=True, check=True).stdout


def test_a_key_made_by_openssl_is_found_and_signs(tmp_path: Path) -> None:
    file = tmp_path / "own.pem"
    made = ["openssl", "genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:theirs", "-out", str(file)]
    subprocess.run(made, check=True)
    ring = KeyRing(tmp_path, knows("theirs"))
    uri, public = ring.find(f"encfile:{file}")
    public.verify_signature(ring.load(uri, public).sign(b"x"), b"x")


def test_none_is_written_over_and_names_of_keys_elsewhere_are_kept(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path, knows(None))
    first, _ = ring.make("root")
    before = (tmp_path / "keys" / "root-1.pem").read_bytes()
    second, _ = ring.make("root", ["file2:keys/root-2.pem"])
    assert (first, second) == ("file2:keys/root-1.pem", "file2:keys/root-3.pem")
    assert (tmp_path / "keys" / "root-1.pem").read_bytes() == before
    assert ring.made == [tmp_path / "keys" / "root-1.pem", tmp_path / "keys" / "root-3.pem"]


def test_a_key_without_a_passphrase_lies_in_a_folder_of_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "plant #2?"
    folder.mkdir()
    ring = KeyRing(folder, knows(None))
    uri, public = ring.make("targets")
    public.verify_signature(ring.load(uri, public).sign(b"x"), b"x")
    assert ring.find(uri)[1] == public


def test_a_key_on_a_stick_is_found_by_its_name(tmp_path: Path) -> None:
    uri, public = KeyRing(tmp_path, knows(None)).make("root")
    stick = tmp_path / "stick"
    stick.mkdir()
    (tmp_path / "keys" / "root-1.pem").rename(stick / "root-1.pem")
    assert KeyRing(tmp_path, knows(None)).is_here(uri) is False
    with pytest.raises(ConfigError, match=r"root-1\.pem: no such file.*--keys"):
        KeyRing(tmp_path, knows(None)).load(uri, public)
    ring = KeyRing(tmp_path, knows(None), [stick])
    assert ring.is_here(uri) is True
    public.verify_signature(ring.load(uri, public).sign(b"x"), b"x")


@pytest.mark.parametrize(
    ("made_with", "loaded_with", "scheme", "says"),
    [
        ("right", "wrong", "encfile", "the passphrase is wrong"),
        ("right", None, "encfile", "wants a passphrase"),
        ("right", None, "file2", "is encrypted: write encfile:"),
        (None, "any", "encfile", "is not encrypted: write file2:"),
    ],
)
def test_a_passphrase_that_does_not_fit(
    made_with: str | None, loaded_with: str | None, scheme: str, says: str, tmp_path: Path
) -> None:
    _, public = KeyRing(tmp_path, knows(made_with)).make("root")
    with pytest.raises(ConfigError, match=rf"{scheme}:keys/root-1\.pem: {says}"):
        KeyRing(tmp_path, knows(loaded_with)).load(f"{scheme}:keys/root-1.pem", public)


def test_an_empty_passphrase_makes_no_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="protects nothing"):
        KeyRing(tmp_path, knows("")).make("root")
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("scheme", ["encfile", "file2"])
def test_a_file_that_is_no_key_or_another_key(scheme: str, tmp_path: Path) -> None:
    passphrase = "p" if scheme == "encfile" else None
    ring = KeyRing(tmp_path, knows(passphrase))
    uri, _ = ring.make("root")
    with pytest.raises(ConfigError, match="is another key than"):
        ring.load(uri, CryptoSigner.generate_ed25519().public_key)
    (tmp_path / "keys" / "root-1.pem").write_text("no key")
    for attempt in (lambda: ring.find(uri), lambda: ring.load(uri, CryptoSigner.generate_ed25519().public_key)):
        with pytest.raises(ConfigError, match=r"keys/root-1\.pem: .*PEM"):
            attempt()


@pytest.mark.parametrize(
    ("uri", "library"),
    [
        ("hsm:2", "securesystemslib[hsm]"),
        ("hsm:2?label=YubiKey", "securesystemslib[hsm]"),
        ("awskms:alias/models", "securesystemslib[awskms]"),
        ("gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1", "securesystemslib[gcpkms]"),
        ("azurekms://vault.vault.azure.net/keys/models/1", "securesystemslib[azurekms]"),
        ("hv:models/1", "securesystemslib[vault]"),
    ],
)
def test_devices_and_services_say_which_library_they_need(uri: str, library: str, tmp_path: Path) -> None:
    ring = KeyRing(tmp_path, knows("1234"))
    for attempt in (lambda: ring.find(uri), lambda: ring.load(uri, CryptoSigner.generate_ed25519().public_key)):
        with pytest.raises(ConfigError) as caught:
            attempt()
        assert f"key {uri}: " in str(caught.value)
        assert f"pip install '{library}'" in str(caught.value)


@pytest.mark.parametrize("uri", ["gnupg:", "sigstore:x", "keys/root-1.pem", "azurekms:models", "hsm:second"])
def test_uris_that_name_no_key(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"key {uri}: "):
        KeyRing(tmp_path, knows(None)).find(uri)


def test_a_public_key_is_hex_or_a_file(tmp_path: Path) -> None:
    private = Ed25519PrivateKey.generate().public_key()
    text = private.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
    (tmp_path / "public.pem").write_bytes(private.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert public_from(text) == public_from(text.upper()) == public_from(str(tmp_path / "public.pem"))
    assert public_from(text).keyval == {"public": text}
    (tmp_path / "other.pem").write_text("none")
    for wrong in (text[:-1], str(tmp_path / "absent"), str(tmp_path / "other.pem")):
        with pytest.raises(ConfigError, match="public key"):
            public_from(wrong)
