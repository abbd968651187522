"""Trust: what may run is signed by keys that never lie at the hub. Guarantees: sync/TRUST.md."""
