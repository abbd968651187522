"""The authorities below the root get new certificates before theirs end. Their keys stay.

So all that they have signed counts under the new ones: the sites' certificates, the servers', the list of revoked ones.
No site, no token and no kit has to be changed, and a hub that starts again shows the new ones.
"""

from datetime import datetime, timedelta
from pathlib import Path

from edge_hub.enrol.authority import CLIENTS, ROOT, SERVERS, Authority, moment, read_private
from edge_hub.enrol.making import Issuer, make_below
from edge_hub.files import write_private
from edge_models.errors import ConfigError
from edge_sync.enrol.certificate import to_pem

SOON_DAYS = 365
"""So long before an authority ends, its hub says so at each start."""


def renew_authority(path: Path, now_us: int, root_key: Path | None = None) -> Authority:
    """The authority in this folder, with certificates that last five years from now, or as long as the root.

    `root_key`: where the root's key is, if not in the folder. Each of the two is replaced whole: after a kill both old
    and new ones count, and doing it again does the rest. Raises `ConfigError`; nothing has changed then.
    """
    authority, now = Authority(path), moment(now_us)
    if root_key is None and not (path / f"{ROOT}.key").exists():
        raise ConfigError(f"{path} has no {ROOT}.key, as it should be: say where it is kept with --root-key FILE")
    root = Issuer(authority.root, read_private(root_key or path / f"{ROOT}.key"))
    if root.key.public_key() != authority.root.public_key():
        raise ConfigError(f"{root_key or path / f'{ROOT}.key'} is not the key of {path / f'{ROOT}.pem'}")
    if not authority.root.not_valid_before_utc <= now < authority.root.not_valid_after_utc:
        raise ConfigError(
            f"it is {now:%Y-%m-%d} here, and the root is good from {authority.root.not_valid_before_utc:%Y-%m-%d} to "
            f"{authority.root.not_valid_after_utc:%Y-%m-%d}: set the clock, or make another authority (hub ca init)"
        )
    try:
        for name, old in ((CLIENTS, authority.clients), (SERVERS, authority.servers)):
            made = make_below(root, name, now, old.key)
            early = old.certificate.not_valid_before_utc > now  # made while the clock was ahead
            if early or made.certificate.not_valid_after_utc > old.certificate.not_valid_after_utc:
                write_private(path / f"{name}.pem", to_pem([made.certificate]))
    except OSError as error:
        raise ConfigError(f"authority {path}: {error.strerror}") from None
    return Authority(path)


def ends_soon(authority: Authority, now_us: int) -> str | None:
    """A line for the operator where the authority has not long to last; None where it has."""
    ends = moment(authority.ends_us)
    if ends - moment(now_us) > timedelta(days=SOON_DAYS):
        return None
    root_ends = authority.root.not_valid_after_utc
    if ends >= root_ends:
        return f"the root of this hub's authority ends {_day(root_ends)}, and all below it: every site needs a new kit"
    return (
        f"the authorities below the root end {_day(ends)}, and no certificate outlasts them: bring root.key, then "
        f"edge-agent hub ca renew {authority.path}, and start the hub again"
    )


def _day(at: datetime) -> str:
    return f"{at:%Y-%m-%d}"
