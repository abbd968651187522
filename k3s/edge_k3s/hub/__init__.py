"""The manifests of a hub for the central cluster."""
