"""Importing: from a model that was trained anywhere to what a working directory begins with."""

from edge_models.build.importing.model import import_model

__all__ = ["import_model"]
