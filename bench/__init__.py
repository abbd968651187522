"""Benchmarks: each module prints one table of ratios against a baseline it measures in the same run.

Run one from the root of the repository: `.venv/bin/python -m bench.NAME`. What the numbers mean, what they should be
and what they were: docs/performance.md. Nothing here is a test, and nothing is asserted.
"""
