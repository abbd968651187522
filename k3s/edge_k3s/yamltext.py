"""YAML out: the same value always gives the same text, in the order it was written down."""

from collections.abc import Iterable
from typing import Any

import yaml

_RARE_BREAKS = frozenset("\x85\u2028\u2029")


class _Dumper(yaml.SafeDumper):
    """The safe dumper, with text of several lines as a block that a person can read."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - PyYAML's
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    # NEL and the two Unicode separators are line breaks to YAML: only quoted and escaped do they stay what they are.
    style = '"' if _RARE_BREAKS & set(value) else "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def dump(value: Any) -> str:
    """One document."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text


def dump_all(values: Iterable[Any], header: str) -> str:
    """Several documents in one file, below a comment that says what they are."""
    comment = "".join(f"# {line}\n" for line in header.splitlines())
    return comment + "---\n".join(dump(value) for value in values)
