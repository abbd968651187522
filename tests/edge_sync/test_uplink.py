"""sync/SPEC.md, section Journal sync, the site: what is sent, when, and what moves a cursor."""

import random

import pytest

from edge_sync.documents import Ack, Resume
from edge_sync.rows import LANES, Lane
from edge_sync.uplink import (
    ACK_TIMEOUT_S,
    FULL_BATCH_ROWS,
    LINGER_S,
    WINDOW,
    Forked,
    MoveCursor,
    Pull,
    SayHello,
    Stream,
    Uplink,
)

EPOCH = "00112233aabbccdd"
DECISION: Stream = (EPOCH, "decision")


def opened(uplink: Uplink, now: float = 0.0, highs: dict[Lane, int] | None = None) -> Uplink:
    """The uplink after hello and resume."""
    uplink.up("s1", {}, now)
    uplink.resume(Resume(sync="s1", cursors={EPOCH: highs or {}}), now)
    return uplink


def test_hello_names_every_epoch_and_is_said_again_until_it_is_answered() -> None:
    uplink = Uplink()
    uplink.grew(EPOCH, 1, "decision", 5, 0.0)
    [hello] = uplink.up("s1", {}, 0.0)
    assert isinstance(hello, SayHello)
    assert hello.pages[0].epochs[0].last == {"decision": 5}
    assert uplink.tick(1.0) == []
    assert isinstance(uplink.tick(2.0)[0], SayHello)
    uplink.resume(Resume(sync="s1", cursors={EPOCH: {}}), 3.0)
    assert uplink.tick(60.0) == []


def test_nothing_is_sent_before_the_hub_said_where_to_resume() -> None:
    uplink = Uplink()
    uplink.grew(EPOCH, 1, "decision", 900, 0.0)
    assert uplink.pull(100.0) is None
    uplink.up("s1", {}, 0.0)
    assert uplink.pull(100.0) is None
    uplink.resume(Resume(sync="an older session's", cursors={EPOCH: {}}), 0.0)
    assert uplink.pull(100.0) is None
    uplink.resume(Resume(sync="s1", cursors={EPOCH: {"decision": 40}}), 0.0)
    assert uplink.pull(100.0) == Pull(DECISION, 40)


def test_only_a_resume_moves_a_cursor_back() -> None:
    uplink = Uplink()
    uplink.grew(EPOCH, 1, "decision", 50, 0.0)
    opened(uplink, highs={"decision": 30})
    assert uplink.ack(Ack(epoch=EPOCH, lane="decision", seq=20), 1.0) == []
    assert uplink.acked(DECISION) == 30
    uplink.up("s2", {DECISION: 30}, 2.0)
    assert uplink.resume(Resume(sync="s2", cursors={EPOCH: {"decision": 10}}), 2.0) == [MoveCursor(DECISION, 10)]
    assert uplink.pull(2.0) == Pull(DECISION, 10)


def test_an_alarm_does_not_wait_but_telemetry_lingers() -> None:
    uplink = opened(Uplink())
    for lane in LANES:
        uplink.grew(EPOCH, 1, lane, 1, 10.0)
    seen: dict[str, float] = {}
    for tenth in range(250):
        now = 10.0 + tenth / 10
        while (pull := uplink.pull(now)) is not None:
            seen[pull.stream[1]] = now - 10.0
            uplink.sent(pull.stream, 1, 100, now)
    assert seen == {lane: pytest.approx(LINGER_S[lane], abs=0.11) for lane in LANES}


def test_a_site_that_stops_lets_nothing_linger() -> None:
    uplink = opened(Uplink())
    uplink.grew(EPOCH, 1, "telemetry", 1, 0.0)
    assert uplink.pull(0.0) is None
    uplink.hurry()
    assert uplink.pull(0.0) == Pull((EPOCH, "telemetry"), 0)


def test_a_full_batch_does_not_linger_and_the_window_bounds_what_is_on_its_way() -> None:
    uplink = opened(Uplink())
    uplink.grew(EPOCH, 1, "telemetry", FULL_BATCH_ROWS * 20, 0.0)
    sent = 0
    while (pull := uplink.pull(0.0)) is not None:
        sent += 1
        uplink.sent(pull.stream, pull.after + FULL_BATCH_ROWS, 9000, 0.0)
    assert sent == WINDOW
    uplink.ack(Ack(epoch=EPOCH, lane="telemetry", seq=FULL_BATCH_ROWS), 0.1)
    assert uplink.pull(0.1) == Pull((EPOCH, "telemetry"), FULL_BATCH_ROWS * WINDOW)


def test_an_ack_that_does_not_move_sends_the_stream_again_once() -> None:
    uplink = opened(Uplink())
    uplink.grew(EPOCH, 1, "telemetry", 1500, 0.0)
    for end in (500, 1000, 1500):
        uplink.sent((EPOCH, "telemetry"), end, 9000, 0.0)
    stuck = Ack(epoch=EPOCH, lane="telemetry", seq=0)
    uplink.ack(stuck, 0.1)
    assert uplink.pull(0.1) == Pull((EPOCH, "telemetry"), 0)
    uplink.sent((EPOCH, "telemetry"), 500, 9000, 0.1)
    uplink.ack(stuck, 0.2)
    assert uplink.pull(0.2) == Pull((EPOCH, "telemetry"), 500)


def test_without_acks_a_stream_is_sent_again_after_the_timeout() -> None:
    uplink = opened(Uplink())
    uplink.grew(EPOCH, 1, "telemetry", 500, 0.0)
    uplink.sent((EPOCH, "telemetry"), 500, 9000, 0.0)
    uplink.tick(ACK_TIMEOUT_S - 0.1)
    assert uplink.pull(ACK_TIMEOUT_S - 0.1) is None
    uplink.tick(ACK_TIMEOUT_S)
    assert uplink.pull(ACK_TIMEOUT_S) == Pull((EPOCH, "telemetry"), 0)


def test_a_backlog_of_telemetry_does_not_hold_up_decisions_nor_starve() -> None:
    uplink = opened(Uplink())
    for lane in LANES:
        uplink.grew(EPOCH, 1, lane, 10_000_000, 0.0)
    sent: dict[str, int] = dict.fromkeys(LANES, 0)
    for _ in range(2000):
        pull = uplink.pull(0.0)
        assert pull is not None
        end = pull.after + FULL_BATCH_ROWS
        uplink.sent(pull.stream, end, 16_000, 0.0)
        sent[pull.stream[1]] += 16_000
        uplink.ack(Ack(epoch=EPOCH, lane=pull.stream[1], seq=end), 0.0)
    assert sent["alarm"] > sent["decision"] > sent["telemetry"] > 0


def test_the_byte_rate_is_held() -> None:
    uplink = opened(Uplink(byte_rate=20_000))
    uplink.grew(EPOCH, 1, "telemetry", 10_000_000, 0.0)
    sent = 0
    for tenth in range(1000):
        while (pull := uplink.pull(tenth / 10)) is not None:
            sent += 10_000
            uplink.sent(pull.stream, pull.after + 500, 10_000, tenth / 10)
            uplink.ack(Ack(epoch=EPOCH, lane="telemetry", seq=pull.after + 500), tenth / 10)
    assert 0.9 < sent / (100 * 20_000) < 1.1


def test_an_ack_behind_the_cursor_asks_anew_where_to_resume() -> None:
    """The hub was restored from a backup while the link stayed up."""
    uplink = Uplink()
    uplink.grew(EPOCH, 1, "decision", 50, 0.0)
    opened(uplink, highs={"decision": 40})
    assert uplink.ack(Ack(epoch=EPOCH, lane="decision", seq=7), 10.0) == []
    assert uplink.pull(10.0) is None
    [hello] = uplink.tick(10.0)
    assert isinstance(hello, SayHello)
    assert uplink.ack(Ack(epoch=EPOCH, lane="decision", seq=7), 10.1) == []
    assert uplink.tick(10.1) == []
    uplink.resume(Resume(sync="s1", cursors={EPOCH: {"decision": 7}}), 10.2)
    assert uplink.pull(10.2) == Pull(DECISION, 7)


def test_a_stream_that_cannot_be_read_does_not_hold_up_the_others() -> None:
    uplink = opened(Uplink())
    uplink.grew(EPOCH, 1, "telemetry", 5000, 0.0)
    uplink.grew(EPOCH, 1, "alarm", 1, 0.0)
    sent = []
    for second in range(20):
        while (pull := uplink.pull(float(second))) is not None:
            if pull.stream[1] == "telemetry":
                uplink.stalled(pull.stream, float(second))
            else:
                sent.append(pull)
                uplink.sent(pull.stream, 1, 100, float(second))
    assert sent == [Pull((EPOCH, "alarm"), 0)]
    assert uplink.pull(69.0) is None
    assert uplink.pull(70.0) == Pull((EPOCH, "telemetry"), 0)


def test_a_stream_that_is_never_acknowledged_gives_way_to_newer_epochs() -> None:
    uplink = opened(Uplink())
    newer = "ffffffffffffffff"
    uplink.grew(EPOCH, 1, "telemetry", 10_000, 0.0)
    uplink.grew(newer, 2, "telemetry", 10_000, 0.0)
    delivered, now = 0, 0.0
    while now < 120.0:
        now += 0.5
        uplink.tick(now)
        while (pull := uplink.pull(now)) is not None:
            end = pull.after + FULL_BATCH_ROWS
            uplink.sent(pull.stream, end, 1000, now)
            if pull.stream[0] == newer:
                uplink.ack(Ack(epoch=newer, lane="telemetry", seq=end), now)
                delivered = end
    assert delivered == 10_000


def test_a_fork_is_told_once_and_counts_no_more() -> None:
    uplink = opened(Uplink())
    uplink.grew(EPOCH, 1, "decision", 5, 0.0)
    fork = Ack(epoch=EPOCH, lane="decision", seq=0, fork=True)
    assert [len(uplink.ack(fork, 0.0)) for _ in range(3)] == [1, 0, 0]
    assert uplink.backlog() == 0


def test_a_fork_stops_the_stream_and_is_told() -> None:
    uplink = opened(Uplink())
    uplink.grew(EPOCH, 1, "decision", 5, 0.0)
    assert uplink.ack(Ack(epoch=EPOCH, lane="decision", seq=0, fork=True), 0.0) == [Forked(DECISION)]
    assert uplink.pull(100.0) is None


def test_a_new_epoch_in_an_open_session_is_sent_without_another_hello() -> None:
    uplink = opened(Uplink())
    uplink.grew(EPOCH, 1, "decision", 5, 0.0)
    uplink.grew("ffffffffffffffff", 2, "alarm", 1, 0.0)
    assert uplink.pull(0.0) == Pull(("ffffffffffffffff", "alarm"), 0)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_link_loses_the_hub_ends_with_every_row_once(seed: int) -> None:
    """A link that drops, doubles and cuts; a hub that only ever holds a contiguous prefix."""
    dice = random.Random(seed)
    uplink, high, now, sync, last = Uplink(), 0, 0.0, 0, 0
    stored: list[int] = []
    mail: list[tuple[float, int, int]] = []
    while last < 3000 or high < last:
        now += 0.1
        assert now < 5000, f"stuck at {high} of {last}"
        if last < 3000:
            last += dice.randrange(20)
            uplink.grew(EPOCH, 1, "decision", last, now)
        faulty = now < 300
        if uplink.state == "down" or (faulty and dice.random() < 0.01):
            uplink.down()
            mail.clear()
            sync += 1
            uplink.up(f"s{sync}", {DECISION: uplink.acked(DECISION)}, now)
        for effect in uplink.tick(now):
            assert isinstance(effect, SayHello)
        if uplink.state == "greeting" and not (faulty and dice.random() < 0.5):
            uplink.resume(Resume(sync=f"s{sync}", cursors={EPOCH: {"decision": high}}), now)
        while (pull := uplink.pull(now)) is not None:
            end = min(pull.after + FULL_BATCH_ROWS, last)
            uplink.sent(pull.stream, end, 1000, now)
            for _ in range(dice.choice((0, 1, 1, 2)) if faulty else 1):
                mail.append((now + dice.random(), pull.after + 1, end))
        for item in [m for m in mail if m[0] <= now]:
            mail.remove(item)
            _, first, end = item
            if first <= high + 1 and end > high:
                stored += range(high + 1, end + 1)
                high = end
            if not (faulty and dice.random() < 0.3):
                uplink.ack(Ack(epoch=EPOCH, lane="decision", seq=high), now)
    assert stored == list(range(1, last + 1))
