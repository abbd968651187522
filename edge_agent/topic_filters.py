"""MQTT topics and topic filters as people write them. Source: MQTT 3.1.1, section 4.7."""

MAX_TOPIC_BYTES = 65_535


def check_topic(topic: str) -> str:
    """`topic`, if a message can be published to it. Raises `ValueError` saying what is wrong with it."""
    _check_text(topic)
    if "+" in topic or "#" in topic:
        raise ValueError("a topic to publish to has no wildcards (+ or #)")
    if topic.startswith("$"):
        raise ValueError("topics that begin with $ are the broker's own")
    return topic


def check_filter(topic_filter: str) -> str:
    """`topic_filter`, if one can subscribe to it. Raises `ValueError` saying what is wrong with it."""
    _check_text(topic_filter)
    levels = topic_filter.split("/")
    if any("#" in level for level in levels[:-1]) or ("#" in levels[-1] and levels[-1] != "#"):
        raise ValueError("the wildcard # stands alone, as the last level, as in line-1/#")
    if any("+" in level and level != "+" for level in levels):
        raise ValueError("the wildcard + stands alone in its level, as in line-1/+/vibration")
    return topic_filter


def overlap(one: str, other: str) -> bool:
    """Whether some topic matches both filters."""
    ones, others = one.split("/"), other.split("/")
    for left, right in zip(ones, others, strict=False):
        if "#" in (left, right):
            return True
        if left != right and "+" not in (left, right):
            return False
    longer = max(ones, others, key=len)
    shorter = min(len(ones), len(others))
    return len(ones) == len(others) or longer[shorter:] == ["#"]


def _check_text(text: str) -> None:
    if not text or "\0" in text or len(text.encode("utf-8", "replace")) > MAX_TOPIC_BYTES:
        raise ValueError(f"a topic has 1 to {MAX_TOPIC_BYTES} bytes and no NUL")
    if not text.isprintable():
        raise ValueError("a topic has no control characters")
