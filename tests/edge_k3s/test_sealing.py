import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_k3s.kit import write_kit
from edge_k3s.sealing import KEY, SIGNATURE, SUMS, Sealer, read_sums, sums_of, targets_keys, verify
from edge_k3s.spec import KitSpec
from edge_models.errors import RejectedError

PATH = st.from_regex(r"[a-z0-9-]{1,10}(/[a-z0-9.]{2,10}x)?", fullmatch=True)
DIGEST = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)


def openssl(kit: Path) -> bool:
    """What a bare machine does, word for word as README.txt has it."""
    words = ["-verify", "-rawin", "-pubin", "-inkey", KEY, "-in", SUMS, "-sigfile", SIGNATURE]
    done = subprocess.run(["openssl", "pkeyutl", *words], cwd=kit, capture_output=True, text=True, check=False)
    return done.returncode == 0 and "Signature Verified Successfully" in done.stdout


def test_a_bare_machine_can_verify_it(full_kit: Path) -> None:
    assert openssl(full_kit)
    sums = (full_kit / SUMS).read_bytes()
    (full_kit / SUMS).write_bytes(sums.replace(b"site.yaml", b"sitE.yaml"))
    assert not openssl(full_kit)


def test_the_key_is_the_operators(full_kit: Path, sealer: Sealer) -> None:
    keys = targets_keys((full_kit / "root.json").read_bytes())
    assert keys == {sealer.public}
    assert verify((full_kit / SUMS).read_bytes(), (full_kit / SIGNATURE).read_bytes(), keys) == sealer.public


def test_one_changed_byte_of_sums_or_signature_is_noticed(full_kit: Path, sealer: Sealer) -> None:
    sums, signature = (full_kit / SUMS).read_bytes(), (full_kit / SIGNATURE).read_bytes()
    for wrong in (
        (sums[:-2] + b"X\n", signature),
        (sums, signature[:-1] + bytes([signature[-1] ^ 1])),
        (sums, b""),
        (sums, signature * 2),
    ):
        with pytest.raises(RejectedError, match="no key of the operator's targets role"):
            verify(*wrong, [sealer.public])
    with pytest.raises(RejectedError):
        verify(sums, signature, ["00" * 32, "no hex"])


def test_every_file_is_under_the_signature(full_kit: Path) -> None:
    present = {path.relative_to(full_kit).as_posix() for path in full_kit.rglob("*") if path.is_file()}
    assert set(read_sums((full_kit / SUMS).read_bytes())) == present - {SUMS, SIGNATURE}


def test_the_same_key_and_spec_give_the_same_signature(
    joining: KitSpec, full_kit: Path, sealer: Sealer, tmp_path: Path
) -> None:
    write_kit(joining, tmp_path / "again", sealer)
    assert (full_kit / SIGNATURE).read_bytes() == (tmp_path / "again" / SIGNATURE).read_bytes()


@pytest.mark.parametrize(
    "root", [b"", b"[]", b'{"signed": {}}', b'{"signed": {"roles": {"targets": {"keyids": ["a"]}}, "keys": {}}}']
)
def test_what_is_no_root_is_refused(root: bytes) -> None:
    with pytest.raises(RejectedError, match=r"root\.json is no root of trust"):
        targets_keys(root)


@given(st.dictionaries(PATH, DIGEST, max_size=8))
def test_sums_survive_their_own_syntax(digests: dict[str, str]) -> None:
    assert read_sums(sums_of(digests)) == digests


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "a//b", "./x", ""])
def test_a_path_that_leaves_the_kit_is_refused(path: str) -> None:
    with pytest.raises(RejectedError, match="line 1 is no sum"):
        read_sums(f"{'0' * 64}  {path}\n".encode())


@given(st.binary(max_size=200))
def test_only_a_rejection_leaves_the_reader(data: bytes) -> None:
    try:
        read_sums(data)
    except RejectedError:
        return
    assert not data.strip() or b"  " in data
