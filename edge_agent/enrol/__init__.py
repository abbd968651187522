"""Enrolment at the site: how it comes by a certificate, and how it keeps one. Source: sync/SPEC.md, Enrolment."""
