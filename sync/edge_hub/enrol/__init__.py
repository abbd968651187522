"""Enrolment at the hub: its authority, join tokens, what is issued and taken back, and the listener that sites ask.

Source: sync/SPEC.md, section Enrolment.
"""
