"""The file of a backup: whatever is wrong with it is one refusal. Held: edge_agent/MEMORY.md, Backup and restore."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, BinaryIO

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.backup import archive
from edge_agent.backup.archive import Entry, Manifest
from edge_models.errors import ConfigError, RejectedError, RetryableError

FILES = {"memory.db": b"m" * 3_000, "trust/floor": b"1\n", "journal.key": b"k" * 512, "site.yaml": b""}


def manifest_of(files: Mapping[str, bytes], **changed: Any) -> Manifest:
    entries = {name: Entry(size=len(data), sha256=hashlib.sha256(data).hexdigest()) for name, data in files.items()}
    fields: dict[str, Any] = {
        "format": 1, "about": "of plant-01", "kit": "0.1.0", "site": "plant-01", "at_us": 1, "schema_version": 3,
        "records": 1, "epoch": "00000000000000aa", "ends": {"decision": 1}, "release": None, "holds_key": True,
        "left_out": {}, "files": entries,
    }  # fmt: skip
    return Manifest.model_validate(fields | changed)


def written(files: Mapping[str, bytes] = FILES, manifest: Manifest | None = None) -> bytes:
    out = io.BytesIO()
    archive.write(out, manifest or manifest_of(files), {name: io.BytesIO(data) for name, data in files.items()})
    return out.getvalue()


class Sink(io.BytesIO):
    """Keeps what was written when it is closed."""

    def __init__(self, into: dict[str, bytes], name: str) -> None:
        super().__init__()
        self._into, self._name = into, name

    def close(self) -> None:
        self._into[self._name] = self.getvalue()
        super().close()


def read(data: bytes) -> dict[str, bytes]:
    got: dict[str, bytes] = {}
    archive.read(io.BytesIO(data), "b", lambda _: None, lambda name: Sink(got, name))
    return got


def packed(plain: bytes) -> bytes:
    return bytes(zstd.compress(plain))


def tar(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """As any tar writes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as made:
        for info, data in members:
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


def first_member(size: int) -> tarfile.TarInfo:
    """The header of a manifest."""
    info = tarfile.TarInfo("manifest.json")
    info.size, info.mode = size, 0o600
    return info


def test_what_was_written_is_read_and_any_tar_unpacks_it() -> None:
    data = written()
    assert read(data) == FILES
    with tarfile.open(fileobj=io.BytesIO(zstd.decompress(data))) as plain:
        members = {each.name: (each.mode, plain.extractfile(each)) for each in plain.getmembers()}
        assert {name: file.read() for name, (_, file) in members.items() if file and name in FILES} == FILES
        assert {mode for mode, _ in members.values()} == {0o600}
        assert [*members] == ["manifest.json", *FILES]


def test_cut_off_at_any_byte_it_is_refused() -> None:
    data = written()
    for end in range(len(data)):
        with pytest.raises(RejectedError, match="backup b: "):
            read(data[:end])


def test_whatever_byte_is_changed_it_is_refused_or_the_same() -> None:
    data = written()
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 0x41
        with suppress(RejectedError):
            assert read(bytes(changed)) == FILES


def test_whatever_byte_behind_the_manifest_is_changed_it_is_refused() -> None:
    plain = zstd.decompress(written())
    for at in range(plain.index(b"memory.db\0"), len(plain)):
        changed = bytearray(plain)
        changed[at] ^= 0x01
        with pytest.raises(RejectedError):
            read(packed(bytes(changed)))


@given(st.binary(max_size=2_000))
@settings(max_examples=200)
def test_of_any_bytes_only_a_refusal_comes(data: bytes) -> None:
    for each in (data, packed(data), packed(zstd.decompress(written())[:512] + data)):
        with pytest.raises(RejectedError):
            read(each)


@pytest.mark.parametrize(
    "name",
    [
        "../memory.db", "/etc/passwd", "trust/../../x", "trust/mirror/..", "trust/mirror/.hidden", "memory.db-wal",
        "lock", "identity/../memory.db", "identity/a/b", "blobs/x", "sources/press/at", "trust/mirror/a\nb",
        "trust/mirror/ä", "manifest.json", "api.port", "",
    ],
)  # fmt: skip
def test_a_path_that_is_no_backups_is_refused_before_anything_is_taken(name: str) -> None:
    """Headers of names that no tar can have are not even made: the manifest is refused alone."""
    files = {"memory.db": b"m", name: b"x"}
    said = manifest_of(files).model_dump_json().encode()
    taken: list[str] = []

    def take(what: str) -> BinaryIO | None:
        taken.append(what)
        return None

    with pytest.raises(RejectedError, match="belongs to no site's folder"):
        archive.read(io.BytesIO(packed(tar([(first_member(len(said)), said)]))), "b", lambda _: None, take)
    assert taken == []


def test_a_blob_is_called_by_its_digest() -> None:
    data = b"a model"
    true = f"blobs/{hashlib.sha256(data).hexdigest()}"
    assert read(written({"memory.db": b"", true: data})) == {"memory.db": b"", true: data}
    with pytest.raises(RejectedError, match="has another sha256"):
        read(written({"memory.db": b"", f"blobs/{'0' * 64}": data}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("about", "\x1b[2J"), ("kit", "0\n1"), ("left_out", {"a": "\x07"}), ("at_us", 2**60), ("at_us", -1),
        ("site", "../x"), ("epoch", "?"), ("format", 2), ("ends", {"other": 1}),
    ],
)  # fmt: skip
def test_what_a_manifest_says_can_be_shown(field: str, value: Any) -> None:
    fields = json.loads(manifest_of({"memory.db": b""}).model_dump_json()) | {field: value}
    said = json.dumps(fields).encode()
    with pytest.raises(RejectedError, match=rf"manifest\.json: {field}"):
        read(packed(tar([(first_member(len(said)), said), (first_member(0), b"")])))


def test_without_a_memory_it_is_none() -> None:
    with pytest.raises(RejectedError, match="names no memory"):
        read(written({"trust/floor": b"1"}))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE])
def test_what_is_no_plain_file_is_refused(kind: bytes) -> None:
    said = manifest_of({"memory.db": b""}).model_dump_json().encode()
    second = tarfile.TarInfo("memory.db")
    second.type, second.linkname, second.mode = kind, "/etc/passwd", 0o600
    with pytest.raises(RejectedError, match="does not come where"):
        read(packed(tar([(first_member(len(said)), said), (second, b"")])))


def test_a_file_too_many_is_refused() -> None:
    plain = zstd.decompress(written())
    more = tarfile.TarInfo("trust/mirror/x.json")
    with pytest.raises(RejectedError, match="does not end where"):
        read(packed(plain[:-1024] + more.tobuf() + bytes(1024)))
    with pytest.raises(RejectedError, match="does not end where"):
        read(packed(plain + b"x"))


def test_nothing_is_unpacked_beyond_what_was_announced_and_allowed() -> None:
    """Four gigabytes of zeros, in a few hundred kilobytes, which the manifest does not name."""
    out = io.BytesIO()
    plain = zstd.decompress(written())
    with zstd.open(out, "wb") as bomb:
        bomb.write(plain[:-1024])
        for _ in range(64):
            bomb.write(bytes(1024 * 1024))
    with pytest.raises(RejectedError, match="does not end where"):
        read(out.getvalue())

    def no_room(manifest: Manifest) -> None:
        raise RetryableError(f"{manifest.size_bytes()} bytes: no room")

    with pytest.raises(RetryableError, match="no room"):
        archive.read(io.BytesIO(written()), "b", no_room, lambda _: pytest.fail("nothing is to be taken"))
    said = manifest_of(FILES).model_dump_json().replace('"size":3000', f'"size":{2**40}').encode()
    with pytest.raises(RejectedError, match=r"memory\.db\.size"):
        read(packed(tar([(first_member(len(said)), said)])))


def test_a_file_that_changes_while_it_is_read_makes_no_backup() -> None:
    for other in (b"m" * 2_999, b"n" * 3_000):
        with pytest.raises(RetryableError, match=r"memory\.db changed"):
            archive.write(
                io.BytesIO(), manifest_of({"memory.db": FILES["memory.db"]}), {"memory.db": io.BytesIO(other)}
            )


def test_what_a_check_refuses_is_told_as_it_says_it() -> None:
    def check(_: Manifest) -> None:
        raise ConfigError("made by a newer one")

    with pytest.raises(ConfigError, match=r"^made by a newer one$"):
        archive.read(io.BytesIO(written()), "b", check, lambda _: None)
