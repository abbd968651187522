"""What turns one bundle into another, so that a site fetches only what changed. The format: models/DELTA.md."""

from edge_models.delta.apply import apply_delta
from edge_models.delta.make import make_delta

__all__ = ["apply_delta", "make_delta"]
