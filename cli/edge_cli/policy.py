"""`edge-agent policy`: check policy files, and run the cases that live in them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from edge_agent.policy import CaseResult, Policy, PolicyError, load_policy, run_cases
from edge_cli.hub_client import HubDirOption, HubOption, TokenOption
from edge_cli.output import CONFIG, FOUND, data, emit_json, talk
from edge_cli.publish import AgainOption, TrustOption, publish_file, read_file
from edge_cli.repository import KeysOption, PassphraseOption
from edge_sync.trust.paths import POLICIES

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Check and test policies. Exit codes: docs/policy.md."
)

Files = Annotated[list[Path], typer.Argument(metavar="FILE…", help="Policy files.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


@app.command()
def check(files: Files, as_json: AsJson = False) -> None:
    """Check that policies can run: keys, types, names and limits; nothing is executed.

    Example: edge-agent policy check examples/policies/press-guard.yaml
    """
    loaded, errors = _load(files)
    if as_json:
        emit_json(_report(files, loaded, errors, {path: _facts(policy) for path, policy in loaded.items()}))
    else:
        for path, policy in loaded.items():
            _say(f"{path}: ok: {policy.name} version {policy.version}, {_counted(policy)}")
    _leave(errors)


@app.command("test")
def run(files: Files, as_json: AsJson = False) -> None:
    """Run the cases in policies: each situation, and the rule that must decide in it.

    Example: edge-agent policy test examples/policies/press-guard.yaml
    """
    loaded, errors = _load(files)
    results = {path: run_cases(policy) for path, policy in loaded.items()}
    if as_json:
        done = {path: {**_facts(loaded[path]), "results": [*map(_result, each)]} for path, each in results.items()}
        emit_json(_report(files, loaded, errors, done, ok=_all_passed(results)))
    else:
        for path, each in results.items():
            _tell(path, each)
    _leave(errors)
    if not _all_passed(results):
        raise typer.Exit(FOUND)


@app.command()
def publish(
    file: Annotated[Path, typer.Argument(help="A policy file.", show_default=False)],
    trust: TrustOption,
    keys: KeysOption = None,
    passphrase_file: PassphraseOption = None,
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    again: AgainOption = False,
    as_json: AsJson = False,
) -> None:
    """Check a policy, sign that it may run, and give both to the hub.

    Example: edge-agent policy publish press-guard.yaml --trust /secure/trust --hub-dir /var/lib/edge-hub
    """
    content = read_file(file)
    load_policy(content, file.name)
    publish_file(POLICIES, content, file.name, trust, keys, passphrase_file, (hub, token_file, hub_dir), as_json, again)


def _load(files: list[Path]) -> tuple[dict[Path, Policy], dict[Path, tuple[str, ...]]]:
    """The policies that load, and the problems of those that do not, which are also said."""
    loaded: dict[Path, Policy] = {}
    errors: dict[Path, tuple[str, ...]] = {}
    for path in files:
        try:
            loaded[path] = load_policy(path)
        except PolicyError as error:
            errors[path] = error.problems
            for problem in error.problems:
                talk.print(f"error: {problem}", markup=False, soft_wrap=True)
    return loaded, errors


def _leave(errors: dict[Path, tuple[str, ...]]) -> None:
    if errors:
        raise typer.Exit(CONFIG)


def _report(
    files: list[Path],
    loaded: dict[Path, Policy],
    errors: dict[Path, tuple[str, ...]],
    found: dict[Path, dict[str, Any]],
    ok: bool = True,
) -> dict[str, Any]:
    rows = [
        {"file": str(path), "errors": list(errors.get(path, ())), **(found[path] if path in loaded else {})}
        for path in files
    ]
    return {"files": rows, "ok": ok and not errors}


def _facts(policy: Policy) -> dict[str, Any]:
    return {
        "policy": policy.name,
        "version": policy.version,
        "digest": policy.digest,
        "rules": [rule.name for rule in policy.rules],
        "tools": sorted(policy.tools),
        "labels": sorted(policy.labels),
        "cases": len(policy.cases),
    }


def _result(result: CaseResult) -> dict[str, Any]:
    choice = result.choice
    return {
        "case": result.case.name,
        "passed": result.passed,
        "expected": result.case.expect,
        "got": result.got,
        "expected_with": result.case.expect_with,
        "got_with": choice.do.args if choice.do else None,
        "abstained": choice.abstained,
        "conditions": [{"rule": c.rule, "value": c.value, "error": c.error} for c in choice.conditions],
    }


def _tell(path: Path, results: list[CaseResult]) -> None:
    if not results:
        _say(f"{path}: no cases: add some under `cases:`")
        return
    for result in results:
        if not result.passed:
            _say(f"{path}: case '{result.case.name}' failed")
            _say(f"  expected  {result.case.expect}{_args(result.case.expect_with)}")
            why = f" ({result.choice.abstained})" if result.choice.abstained else ""
            _say(f"  got       {result.got}{why}{_args(result.choice.do.args if result.choice.do else None)}")
            for condition in result.choice.conditions:
                value = f"error: {condition.error}" if condition.error else str(condition.value).lower()
                _say(f"  {condition.rule}: {value}")
    _say(f"{path}: {sum(result.passed for result in results)} of {len(results)} cases passed")


def _args(args: Any) -> str:
    return "" if args is None else f" with {args}"


def _counted(policy: Policy) -> str:
    tools = ", ".join(sorted(policy.tools)) or "none"
    return f"{_plural(len(policy.rules), 'rule')}, {_plural(len(policy.cases), 'case')}, tools: {tools}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _all_passed(results: dict[Path, list[CaseResult]]) -> bool:
    return all(result.passed for each in results.values() for result in each)


def _say(line: str) -> None:
    data.print(line, markup=False)
