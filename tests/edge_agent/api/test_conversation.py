"""A conversation's own rules, by a clock that the test moves."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from edge_agent.api.conversation import Conversation, Shared
from edge_agent.api.limits import Limits
from edge_agent.api.messages import Handler, Head, Refusal, Slow, json_reply

GET = b"GET /there HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /there HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n"
LIMITS = Limits(header_timeout_s=10, body_timeout_s=30, idle_timeout_s=15, held_bytes=15)


@dataclass
class Clock:
    """Seconds, as the test says."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def route(head: Head) -> Handler:
    """Says how large the body is; slowly at /slow."""
    if head.path == "/nowhere":
        raise Refusal(404, "nothing here")
    if head.path == "/slow":
        return lambda body: Slow(lambda: json_reply(len(body)))
    return lambda body: json_reply(len(body))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shared() -> Shared:
    return Shared(route, LIMITS)


@pytest.fixture
def begin(shared: Shared, clock: Clock) -> Callable[[], Conversation]:
    return lambda: Conversation(shared, clock)


def status(answer: bytes) -> int:
    """The status of one answer."""
    return int(answer.split()[1])


def test_each_part_of_a_request_has_its_time_and_no_trickle_makes_it_longer(
    begin: Callable[[], Conversation], clock: Clock
) -> None:
    talk = begin()
    assert talk.due == 10
    clock.now = 4
    assert list(talk.receive(POST[:5])) == []
    assert talk.due == 14
    for at, octet in enumerate(POST[5:-1]):
        clock.now = 5 + at / 10
        assert list(talk.receive(bytes([octet]))) == []
    assert talk.due == 14
    clock.now = 13
    assert list(talk.receive(POST[-1:] + b"12345")) == []
    assert talk.due == 43
    clock.now = 20
    assert list(talk.receive(b"6789")) == []
    assert talk.due == 43
    clock.now = 21
    assert [status(answer) for answer in talk.receive(b"0")] == [200]
    assert talk.due == 36
    clock.now = 30
    assert list(talk.receive(b"\r\n\r\n")) == []
    assert talk.due == 36
    assert talk.expire() == b""
    assert talk.over


def test_what_never_became_a_request_is_told_so(begin: Callable[[], Conversation]) -> None:
    for sent, told in ((b"", 408), (b"\r\n", 408), (POST, 408), (POST.replace(b"there", b"nowhere"), 404)):
        talk = begin()
        assert list(talk.receive(sent)) == []
        assert status(talk.expire()) == told
        assert talk.over


def test_an_answer_is_made_when_it_is_asked_for(begin: Callable[[], Conversation]) -> None:
    talk = begin()
    answers = talk.receive(GET * 3)
    assert status(next(answers)) == 200
    talk.finish()
    assert b"connection: close" in next(answers)
    assert list(answers) == []
    assert talk.over


def test_slow_answers_keep_their_place(begin: Callable[[], Conversation]) -> None:
    slow = POST.replace(b"there", b"slow") + b"0123456789"
    assert [answer[-2:] for answer in begin().receive(GET + slow + GET)] == [b"\n0", b"10", b"\n0"]


@pytest.mark.parametrize("ended", ["answered", "closed", "expired"])
def test_a_body_is_held_only_while_its_request_lives(begin: Callable[[], Conversation], ended: str) -> None:
    first, second = begin(), begin()
    assert list(first.receive(POST + b"123456789")) == []
    assert [status(answer) for answer in second.receive(POST + b"0123456789")] == [503]
    if ended == "answered":
        assert [status(answer) for answer in first.receive(b"0")] == [200]
    elif ended == "closed":
        first.close()
    else:
        assert status(first.expire()) == 408
    assert [status(answer) for answer in begin().receive(POST + b"0123456789")] == [200]


def test_one_who_asks_first_is_answered_after_what_came_before(begin: Callable[[], Conversation]) -> None:
    asks = POST.replace(b"host", b"expect: 100-continue\r\nhost")
    assert [status(answer) for answer in begin().receive(GET + asks)] == [200, 100]
    assert [status(answer) for answer in begin().receive(GET + asks.replace(b"there", b"nowhere"))] == [200, 404]
    assert [status(answer) for answer in begin().receive(asks + b"0123456789")] == [200]


def test_a_body_that_nobody_asked_for_is_read_and_not_kept(begin: Callable[[], Conversation]) -> None:
    get = POST.replace(b"POST", b"GET")
    first = begin()
    assert list(first.receive(get + b"123456789")) == []
    assert [status(answer) for answer in begin().receive(POST + b"0123456789")] == [200]
    assert [answer[-1:] for answer in first.receive(b"0")] == [b"0"]


def test_a_conversation_is_silent_until_a_request_is_whole(begin: Callable[[], Conversation]) -> None:
    talk = begin()
    assert list(talk.receive(GET[:-1])) == []
    assert talk.silent
    assert [status(answer) for answer in talk.receive(GET[-1:])] == [200]
    assert not talk.silent
