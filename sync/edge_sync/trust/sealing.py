"""A private key under a passphrase that takes long to guess.

PKCS#8's own container (PBES2) with scrypt, as openssl and pyca/cryptography read it: the latter writes it only with
2048 rounds of PBKDF2, which a graphics card tries millions of times a second.
"""

import base64
import hashlib
import os
import textwrap

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

N, R, P = 16384, 8, 5
"""scrypt's cost: 16 MiB, five times over. Source: OWASP Password Storage Cheat Sheet; openssl reads up to 32 MiB."""

_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT = bytes.fromhex("06092b06010401da47040b")
_AES_256_CBC = bytes.fromhex("060960864801650304012a")
"""Object identifiers as DER. Source: RFC 8018 (A.4, B.2.5), RFC 7914 (7.1)."""

_SEQUENCE, _OCTETS, _INTEGER = 0x30, 0x04, 0x02


def seal(private_pem: bytes, passphrase: bytes) -> bytes:
    """The unencrypted PEM of a private key as an encrypted one."""
    private = load_pem_private_key(private_pem, None).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    salt, iv = os.urandom(16), os.urandom(16)
    key = hashlib.scrypt(passphrase, salt=salt, n=N, r=R, p=P, dklen=32, maxmem=64 * 1024 * 1024)
    padder = PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    sealed = encryptor.update(padder.update(private) + padder.finalize()) + encryptor.finalize()
    cost = b"".join(_der(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big")) for value in (N, R, P))
    derivation = _der(_SEQUENCE, _SCRYPT + _der(_SEQUENCE, _der(_OCTETS, salt) + cost))
    cipher = _der(_SEQUENCE, _AES_256_CBC + _der(_OCTETS, iv))
    how = _der(_SEQUENCE, _PBES2 + _der(_SEQUENCE, derivation + cipher))
    body = base64.b64encode(_der(_SEQUENCE, how + _der(_OCTETS, sealed))).decode()
    lines = "\n".join(textwrap.wrap(body, 64))
    return f"-----BEGIN ENCRYPTED PRIVATE KEY-----\n{lines}\n-----END ENCRYPTED PRIVATE KEY-----\n".encode()


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes((tag, size)) + content
    long = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(long))) + long + content
