"""Every command says what it does, with an example; whoever has data can give it as JSON."""

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from edge_cli.main import COMMANDS

NO_DATA = {"run", "hub serve", "hub work"}
"""Commands that answer nothing: they run until they are stopped."""


def commands() -> Iterator[tuple[str, Any]]:
    for name in COMMANDS:
        yield from below(name, typer.main.get_command(importlib.import_module(f"edge_cli.{name}").app))


def below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if not children:
        yield name, command
    for child, each in (children or {}).items():
        yield from below(f"{name} {child}", each)


ALL = dict(commands())


def test_the_commands_are_those_the_design_names() -> None:
    assert set(ALL) == {
        "demo", "run", "infer", "doctor", "hub serve",
        "image build", "image wheels", "image base", "node provision", "node check", "node install", "node join",
        "node renew", "node status", "node upgrade", "node retire", "node backup", "node restore",
        "model build", "model inspect",
        "model import", "model quantize", "model evaluate", "model pack", "model verify", "model unpack",
        "policy check", "policy test", "release create", "release push", "fleet ls", "fleet show", "fleet verify",
        "fleet losses", "fleet explain", "fleet facts", "fleet fact set", "fleet fact delete", "fleet fact ls",
        "memory tail", "memory explain", "memory verify", "memory erase", "memory add", "memory search",
        "memory forget",
        "hub backup", "hub restore", "hub manifests", "hub take-secrets", "hub work", "hub ca init", "hub ca renew",
        "fleet revoke",
        "fleet tokens", "fleet token make", "fleet token rm", "fleet keep ls", "fleet keep rm", "fleet erase",
        "model publish", "policy publish", "agents publish",
        "trust init", "trust status", "trust rotate", "trust add-key", "trust revoke-key", "trust renew",
        "trust withdraw", "trust push",
        "update status", "update hold", "update unhold", "update rollback", "update import", "update export",
    }  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_help_with_an_example_of_itself(name: str) -> None:
    assert f"Example: edge-agent {name}" in " ".join((ALL[name].help or "").split())


@pytest.mark.parametrize("name", sorted(set(ALL) - NO_DATA))
def test_every_command_with_data_can_give_json(name: str) -> None:
    assert any("--json" in parameter.opts for parameter in ALL[name].params)


def test_the_list_of_commands_names_them_and_the_exit_codes() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "edge_cli.main", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    ).stdout
    assert all(f" {name} " in said for name in COMMANDS)
    assert "Exit codes: 0 done" in said
