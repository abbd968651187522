"""The technician's page shows what the site says, safely, whatever is missing."""

import json
from html.parser import HTMLParser
from typing import Any

import pytest

from edge_agent.api.page import FIELDS, render
from edge_agent.api.status import Status

FULL: Status = {
    "site": "plant-01",
    "light": "attention",
    "headline": "The hub cannot be reached; the site works on.",
    "version": "0.1.0",
    "uptime_s": 90_061,
    "now_us": 1_790_000_000_000_000,
    "hub": {"connected": False, "for_s": 7_260, "backlog_rows": 12_345, "autonomy_s": 1_814_400, "address": "hub:8883"},
    "release": {"number": 2, "state": "active"},
    "memory": {"used_bytes": 460_000_000, "budget_bytes": 512_000_000, "evicted_rows": 0},
    "agents": [
        {
            "name": "spindle",
            "light": "ok",
            "state": "running",
            "model": "trace 2",
            "digest": "sha256:0123456789abcdef",
            "decisions": 1,
            "last": {
                "at_us": 1_789_999_995_000_000,
                "subject": "press-4",
                "label": "worn",
                "score": 0.973,
                "rule": "stop-when-worn",
                "action": "mqtt.publish done",
            },
        },
        {"name": "door", "light": "down", "state": "restarting", "error": "no broker at 127.0.0.1:1883"},
    ],
}


class Text(HTMLParser):
    """The words of a page, and proof that its elements nest."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.open: list[str] = []
        self.elements: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data.strip())


def read(status: Status) -> Text:
    text = Text()
    text.feed(render(status).decode())
    text.close()
    assert text.open == []
    return text


def test_everything_there_is_to_say_is_said() -> None:
    words = " ".join(read(FULL).words)
    for phrase in (
        "plant-01",
        "The hub cannot be reached; the site works on.",
        "Not connected",
        "for 2 h 1 min · 12\N{NARROW NO-BREAK SPACE}345 records to report · can go on alone for 21 d · hub:8883",
        "Release 2",
        "460 MB",
        "press-4 worn",
        "97.3 %",
        "stop-when-worn",
        "mqtt.publish done",
        "5 s ago",
        "0123456789ab",
        "1 decision",
        "no broker at 127.0.0.1:1883",
        "running for 1 d 1 h",
    ):
        assert phrase in words


@pytest.mark.parametrize("part", [{}, {"hub": {}}, {"release": {}}, {"memory": {}}, {"agents": [{}]}])
def test_what_is_missing_is_left_out(part: Status) -> None:
    assert "All is well." in read(part).words


def test_what_a_sensor_says_is_text_never_markup() -> None:
    evil = "<script>alert(1)</script>$site"
    status: Status = {
        "site": evil,
        "headline": evil,
        "light": '"><script>',  # type: ignore[typeddict-item]
        "version": evil,
        "hub": {"address": evil},
        "release": {"number": 1, "state": evil},
        "agents": [
            {"name": evil, "state": evil, "model": evil, "digest": evil, "error": evil, "last": {"label": evil}},
        ],
    }
    assert "script" not in read(status).elements


def test_the_page_loads_nothing_from_anywhere(site: Any) -> None:
    answer = site.get("/")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = answer.body.decode()
    assert "plant-01" in page
    for reference in ("src=", "href=", "url(", "@import", "<script"):
        assert reference not in page
    assert dict(FIELDS)[b"cache-control"] == b"no-store"


def test_the_same_as_json(site: Any) -> None:
    answer = site.get("/", accept="application/json")
    assert json.loads(answer.body) == {"site": "plant-01", "headline": "All is well."}
