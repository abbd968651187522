"""`edge-agent demo`: the kit's main job on one machine, every part of it a real process."""

from edge_cli.demo.command import app

__all__ = ["app"]
