"""How a policy decides: docs/policy.md, "How it decides"."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.policy import Policy, Situation, load_policy
from edge_agent.records import Choice, Condition, Do

MakeSituation = Callable[..., Situation]

HEAD = "policy: p\nversion: 1\n"


def policy(rules: str, head: str = HEAD) -> Policy:
    return load_policy(f"{head}rules:\n{rules}".encode())


def test_the_first_true_rule_decides(situation: MakeSituation) -> None:
    chosen = policy(
        """
  - {name: a, when: prediction.score > 0.95}
  - {name: b, when: prediction.score > 0.9, do: {tool: alert, with: {text: =prediction.label}}}
  - {name: c, when: "true"}
"""
    ).decide(situation(), 0.0)
    conditions = (Condition("a", value=False), Condition("b", value=True))
    assert chosen == Choice("b", Do("alert", {"text": "fault-c"}), None, conditions)


def test_a_rule_without_do_decides_to_do_nothing(situation: MakeSituation) -> None:
    chosen = policy('  - {name: a, when: "true"}').decide(situation(), 0.0)
    assert chosen == Choice("a", None, None, (Condition("a", value=True),))


def test_no_rule_abstains(situation: MakeSituation) -> None:
    chosen = policy('  - {name: a, when: "false"}').decide(situation(), 0.0)
    assert chosen == Choice(None, None, "no rule", (Condition("a", value=False),))


@pytest.mark.parametrize(
    ("score", "abstained"),
    [(0.59, "score below 0.6"), (0.6, None), (0.61, None), (float("nan"), "score below 0.6")],
)
def test_below_the_score_it_abstains(score: float, abstained: str | None, situation: MakeSituation) -> None:
    chosen = policy('  - {name: a, when: "true"}', HEAD + "abstain_below: 0.6\n").decide(situation(score=score), 0.0)
    assert chosen.abstained == abstained
    if abstained:
        assert chosen == Choice(None, None, abstained, ())


def test_nan_abstains_where_nothing_is_said_of_scores(situation: MakeSituation) -> None:
    chosen = policy('  - {name: a, when: "true"}').decide(situation(score=float("nan")), 0.0)
    assert chosen.abstained == "score below 0"


def test_a_condition_with_an_error_is_false_and_recorded(situation: MakeSituation) -> None:
    chosen = policy(
        """
  - {name: a, when: observation.absent == 1, do: {tool: alert}}
  - {name: b, when: "true"}
"""
    ).decide(situation(), 0.0)
    conditions = (Condition("a", value=False, error='no key "absent"'), Condition("b", value=True))
    assert chosen == Choice("b", None, None, conditions)


def test_an_argument_with_an_error_abstains_and_later_rules_do_not_run(situation: MakeSituation) -> None:
    chosen = policy(
        """
  - {name: a, when: "true", do: {tool: alert, with: {text: {to: =observation.absent}}}}
  - {name: b, when: "true", do: {tool: alert}}
"""
    ).decide(situation(), 0.0)
    abstained = 'argument text.to: no key "absent"'
    assert chosen == Choice("a", None, abstained, (Condition("a", value=True),))


LIMITED = """
  - name: a
    when: prediction.label == "fault-c"
    do: {tool: alert, with: {machine: =observation.machine}}
    limit: {times: 2, per_s: 60}
  - {name: b, when: "true"}
"""


def test_over_its_limit_a_rule_abstains(situation: MakeSituation) -> None:
    limited, given = policy(LIMITED), situation(observation={"machine": "press-4"})
    chosen = [limited.decide(given, now) for now in (0.0, 1.0, 2.0)]
    assert [each.abstained for each in chosen] == [None, None, "limit"]
    assert chosen[2] == Choice("a", None, "limit", (Condition("a", value=True),))
    assert limited.decide(given, 60.0).do == Do("alert", {"machine": "press-4"})


def test_only_what_acts_counts_towards_a_limit(situation: MakeSituation) -> None:
    limited, given = policy(LIMITED), situation(observation={"machine": "press-4"})
    for _ in range(5):
        assert limited.decide(situation(), 0.0).abstained == 'argument machine: no key "machine"'
        assert limited.decide(situation("normal"), 0.0).rule == "b"
    assert [limited.decide(given, 0.0).abstained for _ in range(3)] == [None, None, "limit"]


def test_fresh_has_none_of_its_limits_used(situation: MakeSituation) -> None:
    limited, given = policy(LIMITED), situation(observation={"machine": "press-4"})
    assert [limited.decide(given, 0.0).abstained for _ in range(3)] == [None, None, "limit"]
    fresh = limited.fresh()
    assert fresh.decide(given, 0.0).abstained is None
    assert limited.decide(given, 0.0).abstained == "limit"
    assert (fresh.name, fresh.version, fresh.digest) == (limited.name, limited.version, limited.digest)


def test_tools_and_labels(press_guard: Path) -> None:
    loaded = load_policy(press_guard)
    assert loaded.tools == {"mqtt.publish", "alert"}
    assert loaded.labels == {"fault-c", "normal"}
    more = policy(
        """
  - {name: a, when: 'prediction.label in ["x", "y"] || "z" != prediction.label'}
  - {name: b, when: 'prediction.scores["s"] > 0.1', do: {tool: t, with: {n: '=recent("r", 60)'}}}
"""
    )
    assert more.labels == {"x", "y", "z", "s", "r"}


def test_threads_with_a_policy_each_share_what_is_compiled(situation: MakeSituation) -> None:
    loaded = policy(LIMITED)
    found: list[list[str | None]] = []

    def work(own: Policy) -> None:
        given = situation(observation={"machine": "press-4"})
        found.append([own.decide(given, float(now)).abstained for now in range(200)])

    threads = [threading.Thread(target=work, args=(loaded.fresh(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    expected = [None if now % 60 < 2 else "limit" for now in range(200)]
    assert found == [expected] * 4


def test_facts_site_and_recent_are_read(situation: MakeSituation) -> None:
    reading = policy(
        """
  - name: a
    when: facts.shift == "night" && site.id == "plant-01" && recent("fault-c", 60) == 2
"""
    )
    given = situation(
        facts={"shift": "night"}, site={"id": "plant-01"}, recent=lambda label, _s: 2 * (label == "fault-c")
    )
    assert reading.decide(given, 0.0).rule == "a"
    assert reading.decide(situation(), 0.0).rule is None
