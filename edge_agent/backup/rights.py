"""Whose hands a site's folder is in: whoever owns it puts links where he likes, and root would follow them."""

import os
from pathlib import Path

from edge_models.errors import ConfigError


def refuse_root_elsewhere(data: Path) -> None:
    """Raise `ConfigError` where this process is root and the site's folder is another user's."""
    if os.geteuid() != 0 or not data.exists():
        return
    owner = data.stat().st_uid
    if owner != 0:
        raise ConfigError(
            f"{data} is user {owner}'s, and root should not work in it: run this as that user (sudo -u '#{owner}' …)"
        )
