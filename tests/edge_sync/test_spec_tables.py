"""The state table of sync/SPEC.md, read and played line by line: page and code can't part."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_sync.documents import Ack, Resume
from edge_sync.uplink import (
    ACK_TIMEOUT_S,
    HELLO_AGAIN_S,
    STALLED_S,
    Effect,
    Forked,
    MoveCursor,
    Pull,
    SayHello,
    Stream,
    Uplink,
)

SPEC = Path(__file__).parents[2] / "sync" / "SPEC.md"
EPOCH = "00112233aabbccdd"
STREAM: Stream = (EPOCH, "decision")


def table(heading: str) -> dict[tuple[str, str], tuple[str, str]]:
    """State and event → what comes of it, of the first table under this heading."""
    section = SPEC.read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {(state, event): (to, effect) for state, event, to, effect in cells}


def greeting() -> Uplink:
    """An uplink that said hello about one stream of 2,000 records."""
    uplink = Uplink()
    uplink.grew(EPOCH, 1, "decision", 2_000, 0.0)
    uplink.up("s1", {STREAM: 100}, 0.0)
    return uplink


def opened(high: int = 100) -> Uplink:
    """An uplink that may send, with two batches on their way."""
    uplink = greeting()
    uplink.resume(Resume(sync="s1", cursors={EPOCH: {"decision": high}}), 0.0)
    for last in (high + 500, high + 1_000):
        pull = uplink.pull(0.0)
        assert pull is not None
        uplink.sent(pull.stream, last, 100, 0.0)
    return uplink


def ack(uplink: Uplink, seq: int, now: float = 1.0, fork: bool = False) -> list[Effect]:
    return uplink.ack(Ack(epoch=EPOCH, lane="decision", seq=seq, fork=fork), now)


def link_up() -> Uplink:
    uplink = Uplink()
    for order in range(1, 251):
        uplink.grew(f"{order:016x}", order, "alarm", 1, 0.0)
    [hello] = uplink.up("s1", {}, 0.0)
    assert isinstance(hello, SayHello)
    assert [(len(page.epochs), page.after) for page in hello.pages] == [(200, 0), (50, 200)]
    return uplink


def unanswered() -> Uplink:
    uplink, now = greeting(), 0.0
    for wait_s in (*HELLO_AGAIN_S, HELLO_AGAIN_S[-1]):
        assert uplink.tick(now + wait_s - 0.1) == []
        now += wait_s
        assert isinstance(uplink.tick(now)[0], SayHello)
    assert HELLO_AGAIN_S == (2.0, 5.0, 15.0, 30.0)
    return uplink


def answered() -> Uplink:
    for high in (40, 900):
        uplink = greeting()
        assert uplink.resume(Resume(sync="s0", cursors={EPOCH: {"decision": 5}}), 1.0) == []
        answer = Resume(sync="s1", cursors={EPOCH: {"decision": high}})
        assert uplink.resume(answer, 1.0) == [MoveCursor(STREAM, high)]
    return uplink


def ahead() -> Uplink:
    uplink = opened()
    assert ack(uplink, 600) == [MoveCursor(STREAM, 600)]
    return uplink


def at_cursor() -> Uplink:
    uplink = opened()
    assert ack(uplink, 100) == []
    assert uplink.pull(1.0) == Pull(STREAM, 100)
    uplink.sent(STREAM, 600, 100, 1.0)
    assert ack(uplink, 100, 1.1) == []
    assert uplink.pull(1.2) == Pull(STREAM, 600), "once"
    return uplink


def behind() -> Uplink:
    uplink = opened()
    assert ack(uplink, 50, 3.0) == []
    assert uplink.acked(STREAM) == 100
    assert uplink.pull(3.0) is None
    assert isinstance(uplink.tick(3.0)[0], SayHello)
    uplink.resume(Resume(sync="s1", cursors={EPOCH: {"decision": 50}}), 3.1)
    assert uplink.acked(STREAM) == 50
    return uplink


def no_progress() -> Uplink:
    uplink = opened()
    uplink.grew(EPOCH, 1, "telemetry", 2_000, 0.0)
    for time in (1, 2, 3):
        uplink.tick(ACK_TIMEOUT_S * time)
        assert uplink._flows[STREAM].sent == 100
        uplink.sent(STREAM, 600, 100, ACK_TIMEOUT_S * time)
    pull = uplink.pull(ACK_TIMEOUT_S * 3)
    assert pull is not None
    assert pull.stream[1] == "telemetry", "it gives way"
    assert ACK_TIMEOUT_S == 10.0
    return uplink


def unreadable() -> Uplink:
    uplink, now = opened(), 0.0
    assert STALLED_S == (10.0, 60.0, 300.0)
    for wait_s in (*STALLED_S, STALLED_S[-1]):
        uplink.stalled(STREAM, now)
        assert uplink.pull(now + wait_s - 0.1) is None
        now += wait_s
        assert uplink.pull(now) is not None
    return uplink


def forked() -> Uplink:
    uplink = opened()
    assert ack(uplink, 100, fork=True) == [Forked(STREAM)]
    assert uplink.pull(500.0) is None
    return uplink


def link_down() -> Uplink:
    uplink = opened()
    uplink.down()
    assert uplink.pull(500.0) is None
    return uplink


PLAYED: dict[tuple[str, str], Callable[[], Uplink]] = {
    ("down", "link up"): link_up,
    ("greeting", "2, 5, 15, 30 s without answer"): unanswered,
    ("greeting", "resume with this session's sync id"): answered,
    ("open", "ack ahead of the cursor"): ahead,
    ("open", "ack at the cursor, with batches on their way"): at_cursor,
    ("open", "ack behind the cursor"): behind,
    ("open", "no progress for 10 s"): no_progress,
    ("open", "the stream can't be read"): unreadable,
    ("open", "ack with `fork`"): forked,
    ("any", "link down"): link_down,
}


def test_every_line_of_the_table_is_played_here_and_no_other() -> None:
    assert set(table("Journal sync, the site")) == set(PLAYED)


@pytest.mark.parametrize("line", PLAYED, ids=" · ".join)
def test_a_line_of_the_site_s_table_is_what_the_uplink_does(line: tuple[str, str]) -> None:
    assert PLAYED[line]().state == table("Journal sync, the site")[line][0]
