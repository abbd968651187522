"""Releases, trust and artifacts, on their way to the sites."""
