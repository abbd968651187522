"""What mosquitto reads: its settings, passwords and access rules, rendered from our users.

Every user gets a section of its own. mosquitto's `pattern` lines would be shorter, but they hold for every
user there is, and a sensor must not read what a site may.
"""

import os
import pwd
import shutil
from collections.abc import Mapping
from pathlib import Path

from edge_hub.broker.credentials import User
from edge_hub.broker.roles import rules
from edge_hub.broker.tls import TlsListener

CONF, PASSWD, ACL = "mosquitto.conf", "mosquitto.passwd", "mosquitto.acl"

MESSAGE_SIZE_LIMIT_BYTES = 1024 * 1024
"""The largest payload: twice the largest document of the wire."""

_SETTINGS = """\
listener {port} 127.0.0.1
allow_anonymous false
use_username_as_clientid true
password_file {folder}/{passwd}
acl_file {folder}/{acl}
user {user}
# Nothing of value rests in the broker: sites and hub say again whatever is retained.
persistence false
message_size_limit {message_size}
max_packet_size {packet_size}
max_queued_messages 2000
max_queued_bytes {queued_size}
set_tcp_nodelay true
sys_interval 0
connection_messages false
log_dest stderr
log_type error
log_type warning
log_type notice
"""

_TLS = """\
listener {port} {host}
use_username_as_clientid true
# No password is asked for here: the certificate's CN is the user, and so also the client id.
require_certificate true
use_identity_as_username true
certfile {certificate}
keyfile {key}
cafile {clients}
crlfile {revoked}
set_tcp_nodelay true
"""


def find_mosquitto() -> str | None:
    """The mosquitto on PATH, or where Debian puts it, which is on root's PATH only."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def render_conf(folder: Path, port: int, tls: TlsListener | None = None) -> bytes:
    """The settings of a broker that listens on loopback by password, and by certificate where `tls` says so."""
    settings = _SETTINGS.format(
        port=port,
        folder=folder,
        passwd=PASSWD,
        acl=ACL,
        # Started by root, it would else become another user, who can't read this folder.
        user=pwd.getpwuid(os.getuid()).pw_name,
        message_size=MESSAGE_SIZE_LIMIT_BYTES,
        packet_size=MESSAGE_SIZE_LIMIT_BYTES + 64 * 1024,
        queued_size=64 * 1024 * 1024,
    )
    if tls is not None:
        settings += _TLS.format(
            host=tls.host,
            port=tls.port,
            certificate=tls.certificate,
            key=tls.key,
            clients=tls.clients,
            revoked=tls.revoked,
        )
    return settings.encode()


def render_passwd(users: Mapping[str, User]) -> bytes:
    """The password file, of those who have one."""
    having = ((name, user.password) for name, user in sorted(users.items()))
    return "".join(f"{name}:{password.as_text()}\n" for name, password in having if password is not None).encode()


def render_acl(users: Mapping[str, User]) -> bytes:
    """The access rules."""
    lines = []
    for name, user in sorted(users.items()):
        lines.append(f"user {name}")
        lines += [f"topic {rule.access} {rule.filter}" for rule in rules(name, user.role)]
        lines.append("")
    return "\n".join(lines).encode()
