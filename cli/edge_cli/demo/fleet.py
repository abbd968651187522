"""What the demo looks at while it runs: the hub's API and each site's own local API, as anybody could."""

import re
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path

from edge_cli.hub_client import HubClient
from edge_models.errors import KitError

_METRIC = re.compile(r"^(edge_\w+?)(?:\{[^}]*\})? ([0-9.e+-]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class SiteView:
    """One site as it is seen at a moment, from itself and from the hub."""

    site: str
    decisions: int = 0
    actions: int = 0
    backlog: int = 0
    """Rows the hub has not acknowledged, as the site counts them."""
    hub_records: int = 0
    online: bool = False
    """Whether the hub sees the site."""
    release: int = 0
    state: str = "starting"


class FleetView:
    """Looks again at every call; what does not answer keeps its last values."""

    def __init__(self, hub: HubClient, sites: dict[str, Path]) -> None:
        """`sites`: site → its data folder."""
        self._hub = hub
        self._data = sites
        self.now = {site: SiteView(site) for site in sites}

    def look(self) -> dict[str, SiteView]:
        """The fleet now."""
        try:
            listed = {entry["site"]: entry for entry in self._hub.request("GET", "/api/v1/sites")["sites"]}
        except KitError:
            listed = {}
        for site, view in self.now.items():
            entry = listed.get(site)
            if entry is not None:
                view = replace(  # noqa: PLW2901
                    view,
                    hub_records=entry["records"],
                    online=bool(entry["online"]),
                    release=entry["release"] or view.release,
                    state=entry["state"] or view.state,
                )
            self.now[site] = self._from_site(view)
        return self.now

    def _from_site(self, view: SiteView) -> SiteView:
        totals: dict[str, float] = {}
        for name, value in _METRIC.findall(self._metrics(view.site)):
            totals[name] = totals.get(name, 0.0) + float(value)
        if not totals:
            return view
        return replace(
            view,
            decisions=int(totals.get("edge_agent_decisions_total", 0)),
            actions=int(totals.get("edge_agent_actions_total", 0)),
            backlog=int(totals.get("edge_outbox_rows", 0)),
            release=int(totals.get("edge_release", view.release)),
        )

    def _metrics(self, site: str) -> str:
        port = self.api_port(site)
        if port is None:
            return ""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=1) as answer:
                return str(answer.read(1 << 20).decode())
        except (OSError, urllib.error.URLError):
            return ""

    def api_port(self, site: str) -> int | None:
        """Where a site's local API listens, once it does."""
        file = self._data[site] / "api.port"
        return int(file.read_text()) if file.exists() else None
