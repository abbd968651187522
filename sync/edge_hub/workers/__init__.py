"""Ingest in more than one process: leases on sites, the worker, and who looks after it."""
