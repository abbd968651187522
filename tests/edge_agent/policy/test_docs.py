"""docs/policy.md keeps its word: its example runs, and every test it names is there."""

import re
from pathlib import Path

from edge_agent.policy import load_policy, run_cases
from edge_agent.policy.schema import CasePart, GivenPart, PolicyPart, RulePart

HERE = Path(__file__).parent
TEXT = (HERE.parents[2] / "docs" / "policy.md").read_text()


def test_the_example_in_the_reference_runs() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 1
    results = run_cases(load_policy(blocks[0].encode()))
    assert results
    assert all(result.passed for result in results)


def test_every_test_that_holds_a_guarantee_exists() -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", TEXT)
    assert len(named) > 15
    missing = [name for file, name in named if f"def {name}(" not in (HERE / file).read_text()]
    assert not missing


def test_every_key_is_in_the_reference() -> None:
    for part in (PolicyPart, RulePart, CasePart, GivenPart):
        for name, field in part.model_fields.items():
            assert re.search(rf"\b{field.alias or name}\b`", TEXT), name
