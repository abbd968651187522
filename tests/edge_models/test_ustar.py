"""models/FORMAT.md, The container: one byte form, and regular files only."""

import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_models import ustar
from edge_models.errors import RejectedError

NAMES = st.text("abcdefghij0123456789-./", min_size=1, max_size=100)


def tar_of(change: Callable[[tarfile.TarInfo], None], format_: int = tarfile.USTAR_FORMAT) -> bytes:
    """An archive of one member that another tool made, changed so."""
    info = tarfile.TarInfo("index.json")
    info.size = 3
    change(info)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format_) as tar:
        tar.addfile(info, io.BytesIO(b"{ }"))
    return file.getvalue().rstrip(b"\0").ljust(1024, b"\0") + bytes(1024)


@given(st.dictionaries(NAMES, st.binary(max_size=1100), max_size=5))
def test_files_come_back(files: dict[str, bytes]) -> None:
    assert ustar.unpack(ustar.pack(files)) == files


def test_an_archive_as_other_tools_make_it_plainly_is_taken() -> None:
    assert ustar.unpack(tar_of(lambda info: None)) == {"index.json": b"{ }"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(kind: bytes) -> None:
    def change(info: tarfile.TarInfo) -> None:
        info.type, info.linkname, info.size = kind, "/etc/passwd", 0

    with pytest.raises(RejectedError, match="not the plain ustar header of a regular file"):
        ustar.unpack(tar_of(change))


@pytest.mark.parametrize("field", ["mtime", "uid", "gid", "mode", "uname"])
def test_anything_else_in_a_header_is_refused(field: str) -> None:
    with pytest.raises(RejectedError, match="not the plain ustar header"):
        ustar.unpack(tar_of(lambda info: setattr(info, field, "root" if field == "uname" else 1)))


@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_name_extensions_are_refused(format_: int) -> None:
    with pytest.raises(RejectedError, match="not the plain ustar header"):
        ustar.unpack(tar_of(lambda info: setattr(info, "name", "x" * 200), format_))


def test_members_out_of_order_or_twice_are_refused() -> None:
    one, two = (ustar.pack({name: b"x"})[:1024] for name in ("a", "b"))
    assert ustar.unpack(one + two + ustar.END) == {"a": b"x", "b": b"x"}
    for wrong in (two + one, one + one):
        with pytest.raises(RejectedError, match="not in sorted order"):
            ustar.unpack(wrong + ustar.END)


def test_too_many_members_are_refused() -> None:
    with pytest.raises(RejectedError, match="more than"):
        ustar.unpack(ustar.pack({f"{n:05}": b"" for n in range(ustar.MAX_MEMBERS + 1)}))
