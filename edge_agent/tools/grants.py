"""Who may use which tool: both the signed release and the site file must name it. Names are whole, never patterns."""

from collections.abc import Collection


def allowed(tool: str, release_grants: Collection[str], ceiling: Collection[str]) -> str | None:
    """None where both grant `tool`, else which does not, in words."""
    if tool not in release_grants:
        return f"the release does not grant {tool!r} to this agent"
    if tool not in ceiling:
        return f"the site file does not grant {tool!r} to any agent here"
    return None
