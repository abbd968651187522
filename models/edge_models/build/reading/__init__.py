"""Samples from files, a module a kind of file; `edge_models.build.data` chooses."""
