"""Files in a folder: when they are whole, what becomes of them, and what never happens to them."""

import contextlib
import hashlib
import io
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_agent.records import Malformed, Observation
from edge_agent.sources.base import SourceContext
from edge_agent.sources.folder import FolderSource
from edge_models.errors import ConfigError, RejectedError
from edge_models.pictures import decode_picture


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def source(inbox: Path, context: SourceContext) -> Iterator[FolderSource]:
    source = FolderSource(options(), context)
    source.start()
    yield source
    source.close()


def options(**more: Any) -> dict[str, Any]:
    return {"path": "inbox", "pattern": "*.json", "take": "json", "after": "delete"} | more


def put(folder: Path, name: str, content: bytes = b"{}") -> Path:
    """A file as a good writer puts it there: written under another name, then renamed, a clock tick later."""
    draft = folder / f".{name}"
    draft.write_bytes(content)
    written = draft.stat().st_mtime_ns
    probe = folder / ".probe"
    while True:
        probe.write_bytes(b"")
        if probe.stat().st_mtime_ns > written:
            break
    probe.unlink()
    return draft.rename(folder / name)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_file() or p.is_symlink())


def test_a_renamed_file_is_taken_at_once_and_gone_when_done(inbox: Path, source: FolderSource) -> None:
    put(inbox, "b.json", b'{"n": 2}')
    put(inbox, "a.json", b'{"n": 1}')
    put(inbox, "c.txt")
    started = time.monotonic()
    taken = source.take(10, 20)
    assert time.monotonic() - started < 0.9
    assert [o.values for o in taken if isinstance(o, Observation)] == [
        {"n": 1, "_file": "a.json"},
        {"n": 2, "_file": "b.json"},
    ]
    assert names(inbox) == ["a.json", "b.json", "c.txt"], "not durable yet: still there"
    assert source.take(10, 0.3) == [], "and not taken twice"
    source.done()
    assert names(inbox) == ["c.txt"]
    assert not source.exhausted()
    assert source.dropped() == 0


def test_a_name_that_is_no_utf8_is_shown_with_what_can_be_read_of_it(inbox: Path, source: FolderSource) -> None:
    for name, content in ((b"\xff-good.json", b'{"n": 1}'), (b"\xff-oops.json", b"oops")):
        put(inbox, os.fsdecode(name), content)
    good, bad = source.take(10, 20)
    assert isinstance(good, Observation)
    assert good.values == {"n": 1, "_file": "\ufffd-good.json"}
    assert isinstance(bad, Malformed)
    assert bad.reason.startswith("file \ufffd-oops.json: ")
    source.done()
    assert names(inbox) == []
    assert os.listdir(os.fsencode(inbox / "bad")) == [b"\xff-oops.json"], "and put away under the name it has"


def test_a_file_that_is_still_written_to_is_left_alone_until_it_rests(inbox: Path, source: FolderSource) -> None:
    with (inbox / "slow.json").open("wb") as file:
        file.write(b'{"text": "')
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            file.write(b"x")
            file.flush()
            assert source.take(10, 0.15) == []
        file.write(b'"}')
    rested = time.monotonic()
    (seen,) = source.take(10, 20)
    assert isinstance(seen, Observation)
    assert time.monotonic() - rested >= 0.9


def test_a_crash_between_taking_and_done_reads_again(inbox: Path, context: SourceContext) -> None:
    put(inbox, "a.json", b'{"n": 1}')
    for _ in range(2):
        source = FolderSource(options(), context)
        source.start()
        assert len(source.take(10, 20)) == 1
        source.close()
    assert names(inbox) == ["a.json"]


def test_after_move_keeps_files_even_those_of_one_name(inbox: Path, context: SourceContext) -> None:
    source = FolderSource(options(after="move"), context)
    source.start()
    for n in range(3):
        put(inbox, "same.json", f'{{"n": {n}}}'.encode())
        assert len(source.take(10, 20)) == 1
        source.done()
    kept = sorted((p.read_text() for p in (inbox / "done").iterdir()), key=str)
    assert kept == ['{"n": 0}', '{"n": 1}', '{"n": 2}']
    assert names(inbox) == []
    source.close()


def test_a_file_that_was_replaced_before_done_is_a_new_file(inbox: Path, source: FolderSource) -> None:
    put(inbox, "a.json", b'{"n": 1}')
    assert len(source.take(10, 20)) == 1
    put(inbox, "a.json", b'{"n": 2}')
    source.done()
    (seen,) = source.take(10, 20)
    assert isinstance(seen, Observation)
    assert seen.values["n"] == 2


@pytest.mark.parametrize("content", [b"oops", b"", b"[]", b'{"a": "' + b"x" * 300_000 + b'"}'])
def test_a_bad_file_is_malformed_and_set_aside(inbox: Path, source: FolderSource, content: bytes) -> None:
    put(inbox, "bad.json", content)
    (seen,) = source.take(10, 20)
    assert isinstance(seen, Malformed)
    assert seen.reason.startswith("file bad.json: ")
    assert len(seen.excerpt) <= 200
    assert names(inbox) == ["bad.json"]
    source.done()
    assert names(inbox) == []
    assert (inbox / "bad" / "bad.json").read_bytes() == content


def test_no_symlink_no_pipe_and_no_folder_is_followed(inbox: Path, tmp_path: Path, source: FolderSource) -> None:
    (tmp_path / "secret.json").write_text('{"secret": 1}')
    (inbox / "link.json").symlink_to(tmp_path / "secret.json")
    (inbox / "lost.json").symlink_to(tmp_path / "nothing")
    os.mkfifo(inbox / "pipe.json")
    (inbox / "folder.json").mkdir()
    assert source.take(10, 1.5) == []
    source.done()
    assert (tmp_path / "secret.json").exists()


def test_a_link_for_the_put_away_folder_is_refused(inbox: Path, tmp_path: Path, context: SourceContext) -> None:
    (tmp_path / "elsewhere").mkdir()
    (inbox / "bad").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="a symbolic link, which may lead anywhere"):
        FolderSource(options(), context).start()


def test_files_that_come_while_others_are_taken_are_each_taken_once(inbox: Path, source: FolderSource) -> None:
    wanted = [f"{n:02}.json" for n in range(40)]
    writer = threading.Thread(target=lambda: [put(inbox, name) for name in wanted])
    writer.start()
    seen: list[str] = []
    until = time.monotonic() + 20
    while len(seen) < len(wanted) and time.monotonic() < until:
        seen += [o.values["_file"] for o in source.take(7, 0.2) if isinstance(o, Observation)]
        source.done()
    writer.join()
    assert sorted(seen) == wanted
    assert source.take(10, 0) == []


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_pictures_are_arrays(inbox: Path, context: SourceContext, suffix: str) -> None:
    picture = Image.new("RGB", (6, 4), (250, 10, 10))
    buffer = io.BytesIO()
    picture.save(buffer, format={"jpg": "JPEG"}.get(suffix, suffix.upper()))
    source = FolderSource(options(pattern="*", take="image"), context)
    source.start()
    put(inbox, f"shelf.{suffix}", buffer.getvalue())
    (seen,) = source.take(10, 20)
    assert isinstance(seen, Observation)
    data = buffer.getvalue()
    assert seen.values == {
        "_file": f"shelf.{suffix}",
        "_size_bytes": len(data),
        "_sha256": hashlib.sha256(data).hexdigest(),
        "height": 4,
        "width": 6,
    }
    image = seen.arrays["image"]
    assert image.shape == (4, 6, 3)
    assert image.dtype == np.uint8
    assert image[..., 0].min() > 200
    assert image[..., 1:].max() < 60
    source.done()
    assert names(inbox) == []
    source.close()


def test_a_picture_stands_the_way_its_camera_says() -> None:
    picture = Image.new("RGB", (6, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", exif=exif)
    assert decode_picture(buffer.getvalue()).shape == (6, 4, 3)


def test_a_picture_of_too_many_pixels_is_malformed(inbox: Path, context: SourceContext) -> None:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 1_000_000
    source = FolderSource(options(pattern="*.png", take="image"), context)
    source.start()
    put(inbox, "bomb.png", buffer.getvalue())
    (seen,) = source.take(10, 20)
    assert isinstance(seen, Malformed)
    assert "pixels" in seen.reason
    source.done()
    assert names(inbox / "bad") == ["bomb.png"]
    source.close()


NOISE = np.random.default_rng(7).integers(0, 256, (16, 16, 3), np.uint8)


@given(
    st.sampled_from(["PNG", "JPEG", "WEBP", "BMP"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=5),
    st.floats(0, 1),
)
@settings(deadline=None)
def test_a_damaged_picture_is_a_picture_or_rejected(kind: str, flips: list[tuple[float, int]], cut: float) -> None:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, kind)
    damaged = bytearray(buffer.getvalue())
    for where, bits in flips:
        damaged[int(where * len(damaged))] ^= bits
    with contextlib.suppress(RejectedError):
        assert decode_picture(bytes(damaged[: int(cut * len(damaged)) + 1])).ndim == 3


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"patern": "*"}, "unknown key 'patern' (did you mean 'pattern'?)"),
        ({"pattern": "a/*.json"}, "pattern: a pattern is of file names, without a folder"),
        ({"take": "video"}, "take: Input should be 'json' or 'image'"),
        ({"after": "keep"}, "after: Input should be 'delete' or 'move'"),
    ],
)
def test_wrong_options_are_named(context: SourceContext, more: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        FolderSource(options(**more), context)
    assert problem in str(caught.value)


def test_a_folder_that_is_missing_is_named(context: SourceContext) -> None:
    with pytest.raises(ConfigError, match=r"folder .*nowhere: No such file or directory"):
        FolderSource(options(path="nowhere"), context).start()


def test_without_pillow_it_says_what_to_install(context: SourceContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ConfigError, match=r"pip install 'edge-agent-kit\[images\]'"):
        FolderSource(options(take="image"), context)
