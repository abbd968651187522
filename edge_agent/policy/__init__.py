"""What an agent does about a prediction: rules in order, read from a YAML file, with conditions in CEL.

`load_policy` checks everything that can be checked before a policy runs: keys, types, names, limits.
`Policy.decide` chooses, and says why: every condition it looked at is in the `Choice`, with its error.
Pure: no clock, no files but the policy's own, no network. The reference is `docs/policy.md`.
"""

from edge_agent.policy.cases import CaseResult, run_cases
from edge_agent.policy.engine import Policy
from edge_agent.policy.loading import PolicyError, load_policy
from edge_agent.policy.situation import Situation

__all__ = ["CaseResult", "Policy", "PolicyError", "Situation", "load_policy", "run_cases"]
