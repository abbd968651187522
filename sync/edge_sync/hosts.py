"""What names a machine: a DNS name, or an IP address."""

import ipaddress
import re

_DNS_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
"""Source: RFC 1123 section 2.1, in lower case as Kubernetes wants it."""


def is_dns_name(text: str) -> bool:
    """Whether it is a DNS name in lower case."""
    return _DNS_NAME.fullmatch(text) is not None


def is_address(text: str) -> bool:
    """Whether it is an IPv4 or an IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
