"""sync/SPEC.md, section Chunks: a chunk leaves the hub once however many want it, and only true bytes are kept."""

import random

import pytest

from edge_models.digests import digest_of
from edge_models.errors import RejectedError
from edge_sync.chunks import MAX_CHUNKS, WANT_AGAIN_S, ChunkSender, Receiver, chunk_message, read_chunk
from edge_sync.documents import Want
from edge_sync.release import CHUNK_SIZE_BYTES, Artifact, describe

DATA = random.Random(1).randbytes(CHUNK_SIZE_BYTES * 5 + 17)
DIGEST = digest_of(DATA)
ARTIFACT: Artifact = describe("x.bundle", DATA)


def piece(index: int) -> bytes:
    return DATA[index * CHUNK_SIZE_BYTES : (index + 1) * CHUNK_SIZE_BYTES]


def message(index: int, data: bytes | None = None) -> bytes:
    return chunk_message(DIGEST, index, len(ARTIFACT.chunks), len(DATA), piece(index) if data is None else data)


def drain(sender: ChunkSender, now: float) -> list[tuple[int, str | None]]:
    sent = []
    while (send := sender.next(now)) is not None:
        sent.append((send.index, send.site))
    return sent


def test_wishes_are_pooled_and_the_union_is_sent_once() -> None:
    sender = ChunkSender(pool_s=0.4)
    sender.want("a", Want(digest=DIGEST, missing=[(0, 5)]), 0.0)
    sender.want("b", Want(digest=DIGEST, missing=[(0, 5)]), 0.1)
    sender.want("c", Want(digest=DIGEST, missing=[(3, 3)]), 0.2)
    assert drain(sender, 0.3) == []
    assert sender.wake_at(0.3) == pytest.approx(0.4)
    sent = drain(sender, 0.4)
    assert sorted(sent) == [(i, None) for i in range(6)]
    assert sent[0] == (3, None), "what most sites lack goes first"
    assert sender.wake_at(0.5) is None


def test_those_who_come_late_get_what_they_missed_together() -> None:
    """As after a broker's restart, when sites come back one after the other."""
    sender = ChunkSender(pool_s=0.4, byte_rate=CHUNK_SIZE_BYTES)  # a chunk a second
    sender.want("a", Want(digest=DIGEST, missing=[(0, 9)]), 0.0)
    sent, now = [], 0.0
    for late in ("b", "c", "d"):
        now += 1.0
        sent += drain(sender, now)
        sender.want(late, Want(digest=DIGEST, missing=[(0, 9)]), now)
    while (wake_at := sender.wake_at(now)) is not None:
        now = max(now, wake_at)
        sent += drain(sender, now)
    assert len(sent) == 10 + 3, sent


def test_a_chunk_that_one_site_lacks_goes_to_that_site_alone() -> None:
    sender = ChunkSender(pool_s=0.0)
    sender.want("a", Want(digest=DIGEST, missing=[(1, 2)]), 0.0)
    assert drain(sender, 0.0) == [(1, "a"), (2, "a")]


def test_a_site_that_went_away_is_not_served() -> None:
    sender = ChunkSender(pool_s=0.0)
    sender.want("a", Want(digest=DIGEST, missing=[(0, 5)]), 0.0)
    sender.gone("a")
    assert drain(sender, 0.0) == []


def test_the_byte_rate_paces_chunks() -> None:
    sender = ChunkSender(pool_s=0.0, byte_rate=CHUNK_SIZE_BYTES)
    sender.want("a", Want(digest=DIGEST, missing=[(0, 5)]), 0.0)
    assert len(drain(sender, 0.0)) == 1
    assert len(drain(sender, 0.5)) == 0
    assert len(drain(sender, 1.0)) == 1


def test_a_site_that_says_what_it_can_take_is_served_alone_and_no_faster() -> None:
    sender = ChunkSender(pool_s=0.0)
    for site in ("a", "b"):
        sender.want(site, Want(digest=DIGEST, missing=[(0, 5)]), 0.0)
    sender.want("slow", Want(digest=DIGEST, missing=[(0, 5)], bytes_per_s=CHUNK_SIZE_BYTES), 0.0)
    assert drain(sender, 0.0) == [(0, "slow"), *((index, None) for index in range(6))]
    assert sender.wake_at(0.1) == pytest.approx(1.0)
    assert drain(sender, 0.9) == []
    assert drain(sender, 1.0) == [(1, "slow")]
    sender.want("slow", Want(digest=DIGEST, missing=[(2, 5)], bytes_per_s=CHUNK_SIZE_BYTES), 1.5)
    assert drain(sender, 1.5) == [], "asking again does not make it faster"
    sender.want("slow", Want(digest=DIGEST, missing=[(4, 4)]), 1.6)
    assert drain(sender, 1.6) == [(4, "slow")], "it has no bound any more"
    assert sender.wake_at(9.0) is None


def test_artifacts_take_turns_at_a_slow_site_and_it_is_forgotten_when_it_leaves() -> None:
    sender = ChunkSender(pool_s=0.0)
    other = digest_of(b"another")
    for digest in (DIGEST, other):
        sender.want("slow", Want(digest=digest, missing=[(0, 1)], bytes_per_s=CHUNK_SIZE_BYTES), 0.0)
    sent = [send.digest for now in (0.0, 1.0, 2.0) if (send := sender.next(now)) is not None]
    assert sent == [DIGEST, other, DIGEST]
    sender.gone("slow")
    assert (sender.next(3.0), sender.wake_at(3.0)) == (None, None)


def test_what_goes_to_many_sites_is_paced_by_what_a_broker_passes_on() -> None:
    sender = ChunkSender(pool_s=0.0, byte_rate=100 * CHUNK_SIZE_BYTES, passed_on_rate=10 * CHUNK_SIZE_BYTES)
    for site in range(20):
        sender.want(f"s{site}", Want(digest=DIGEST, missing=[(0, 5)]), 0.0)
    assert [len(drain(sender, now)) for now in (0.0, 1.9, 2.0)] == [1, 0, 1]


def test_a_hostile_wish_for_endless_chunks_is_bounded() -> None:
    sender = ChunkSender(pool_s=0.0)
    sender.want("a", Want(digest=DIGEST, missing=[(0, 2**52)] * 4096), 0.0)
    assert len(drain(sender, 0.0)) == MAX_CHUNKS


def test_the_receiver_asks_for_what_it_lacks_until_it_came() -> None:
    receiver = Receiver()
    receiver.fetch(DIGEST, ARTIFACT, have=[0, 2], now=0.0, jitter_s=0.2)
    assert receiver.wishes(0.1) == []
    [want] = receiver.wishes(0.2)
    assert want.missing == [(1, 1), (3, 5)]
    assert receiver.wishes(1.0) == []
    [again] = receiver.wishes(0.2 + WANT_AGAIN_S)
    assert again.missing == want.missing


def test_true_bytes_are_kept_once_and_the_last_makes_the_artifact_whole() -> None:
    receiver = Receiver()
    receiver.fetch(DIGEST, ARTIFACT, have=[], now=0.0, jitter_s=0.0)
    whole = bytearray(len(DATA))
    done = []
    for index in (5, 0, 3, 1, 4, 2):
        keep = receiver.chunk(message(index), 1.0)
        assert keep is not None
        whole[keep.offset : keep.offset + len(keep.data)] = keep.data
        done.append(receiver.kept(DIGEST, index))
        assert receiver.chunk(message(index), 1.0) is None
    assert done == [False] * 5 + [True]
    assert bytes(whole) == DATA


@pytest.mark.parametrize("lie", [b"", b"x" * CHUNK_SIZE_BYTES, piece(2), piece(0)[:-1]])
def test_wrong_bytes_under_a_right_index_are_refused(lie: bytes) -> None:
    receiver = Receiver()
    receiver.fetch(DIGEST, ARTIFACT, have=[], now=0.0, jitter_s=0.0)
    with pytest.raises(RejectedError, match="not the bytes that were signed"):
        receiver.chunk(message(0, lie), 0.0)
    assert receiver.wanting() == {DIGEST: 6}


def test_an_unasked_chunk_is_ignored_and_noise_is_refused() -> None:
    assert Receiver().chunk(message(0), 0.0) is None
    for noise in (b"", b"EC1", b"EC1\xff\xff", b"EC1\x00\x01\xc1", bytes(CHUNK_SIZE_BYTES * 2)):
        with pytest.raises(RejectedError):
            read_chunk(noise)


def test_a_slow_site_says_so_and_does_not_ask_faster_than_chunks_can_come() -> None:
    receiver = Receiver(bytes_per_s=CHUNK_SIZE_BYTES // 10)
    receiver.fetch(DIGEST, ARTIFACT, have=[], now=0.0, jitter_s=0.0)
    [want] = receiver.wishes(0.0)
    assert want.bytes_per_s == CHUNK_SIZE_BYTES // 10
    assert receiver.wishes(29.0) == []
    assert len(receiver.wishes(31.0)) == 1
