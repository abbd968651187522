"""The hub's HTTP API, `/api/v1`: JSON, a bearer token, and `{"error": "…"}` with the right status when refused."""
