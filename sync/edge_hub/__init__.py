"""The hub: ingest, fleet registry, releases, chunk sending, HTTP API."""
