"""Enrolment, as site and hub both see it: the token's text, requests, EST's encodings, what a certificate says.

`token` and `clockless` import nothing heavy; the others bring `cryptography` along, 7 MB. Source: sync/SPEC.md,
section Enrolment.
"""
