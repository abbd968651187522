"""Topics and filters, against paho's own matching."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from edge_agent.topic_filters import check_filter, check_topic, overlap

LEVELS = ("a", "b", "")
TOPICS = ["/".join(levels) for size in range(1, 6) for levels in product(LEVELS, repeat=size)]
"""Every topic of up to five of these levels; also the empty one, which /# and + share and no message has."""

filters = st.builds(
    lambda head, tail: "/".join([*head, *tail]),
    st.lists(st.sampled_from([*LEVELS, "+"]), max_size=3),
    st.sampled_from([[], ["#"], ["a"], ["+"]]),
).filter(bool)


@given(filters, filters)
@settings(max_examples=500, deadline=None)
def test_filters_overlap_exactly_where_they_share_a_topic(one: str, other: str) -> None:
    shared = [topic for topic in TOPICS if topic_matches_sub(one, topic) and topic_matches_sub(other, topic)]
    assert overlap(one, other) == overlap(other, one) == bool(shared)


@given(filters)
def test_filters_of_the_grammar_pass(topic_filter: str) -> None:
    assert check_filter(topic_filter) == topic_filter


@pytest.mark.parametrize("wrong", ["", "a/#/b", "a#", "#a", "a+/b", "+a", "a\0b", "a\nb", "x" * 65_536])
def test_wrong_filters_are_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"wildcard|topic"):
        check_filter(wrong)


@pytest.mark.parametrize("wrong", ["", "a/+", "#", "a#", "$SYS/broker", "a\0b", "x" * 65_536])
def test_wrong_topics_are_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="topic"):
        check_topic(wrong)


def test_a_topic_passes() -> None:
    assert check_topic("line-1/press 7/öl") == "line-1/press 7/öl"
