"""The status page: one file of HTML without scripts, readable on a phone, in daylight and at night."""

from datetime import UTC, datetime
from functools import cache
from html import escape
from importlib.resources import files
from string import Template

from edge_agent.api.status import AgentStatus, HubStatus, LastDecision, Light, MemoryStatus, ReleaseStatus, Status

FIELDS = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)

_FULL, _NEARLY_FULL = 95, 80
"""Percent of the disk budget."""


def render(status: Status) -> bytes:
    """The page that shows this status."""
    site = escape(status.get("site", "this site"))
    now_us = status.get("now_us", 0)
    cards = [
        _hub(status["hub"]) if "hub" in status else "",
        _release(status["release"]) if "release" in status else "",
        _memory(status["memory"]) if "memory" in status else "",
    ]
    agents = [_agent(agent, now_us) for agent in status.get("agents", [])]
    footer = [f"edge-agent {status['version']}"] if "version" in status else []
    footer += [f"running for {_duration(status['uptime_s'])}"] if "uptime_s" in status else []
    light = status.get("light", "ok")
    page = _template().substitute(
        title=f"{site}: {escape(status.get('headline', light))}",
        site=site,
        clock=_clock(now_us) if now_us else "",
        light=_class(light),
        headline=escape(status.get("headline", "All is well.")),
        facts="".join(cards),
        agents="".join(agents) or '<p class="card soft">No agent runs here yet.</p>',
        footer=escape(" · ".join(footer)),
    )
    return page.encode()


@cache
def _template() -> Template:
    return Template(files("edge_agent.api").joinpath("page.html").read_text(encoding="utf-8"))


def _hub(hub: HubStatus) -> str:
    connected = hub.get("connected", False)
    remarks = [f"for {_duration(hub['for_s'])}"] if "for_s" in hub else []
    backlog = hub.get("backlog_rows", 0)
    remarks.append(f"{_count(backlog, 'record')} to report" if backlog else "everything is reported")
    if not connected and "autonomy_s" in hub:
        remarks.append(f"can go on alone for {_duration(hub['autonomy_s'])}")
    remarks += [hub["address"]] if "address" in hub else []
    remarks += [f"certificate: {hub['certificate']}"] if "certificate" in hub else []
    return _card("Hub", "Connected" if connected else "Not connected", remarks, "ok" if connected else "attention")


def _release(release: ReleaseStatus) -> str:
    remarks = [part for part in (release.get("state", ""), release.get("detail", "")) if part]
    return _card("Release", f"Release {release['number']}" if "number" in release else "None", remarks)


def _memory(memory: MemoryStatus) -> str:
    used, budget = memory.get("used_bytes", 0), memory.get("budget_bytes", 0)
    percent = min(100, round(100 * used / budget)) if budget else 0
    light: Light = "down" if percent >= _FULL else "attention" if percent >= _NEARLY_FULL else "ok"
    bar = f'<div class="bar {light}"><i style="width:{percent}%"></i></div>'
    remarks = [f"of {_size(budget)}"] if budget else []
    if memory.get("evicted_rows"):
        remarks.append(f"{_count(memory['evicted_rows'], 'old record')} removed to make room")
    if "written_bytes_per_decision" in memory:
        remarks.append(f"{_size(memory['written_bytes_per_decision'])} written for each decision")
    return _card("Memory", _size(used), remarks, extra=bar)


def _card(title: str, big: str, remarks: list[str], light: Light | None = None, extra: str = "") -> str:
    shade = f" state {light}" if light else ""
    return (
        f'<div class="card"><h2>{title}</h2><p class="big{shade}">{escape(big)}</p>{extra}'
        f'<p class="soft">{escape(" · ".join(remarks))}</p></div>'
    )


def _agent(agent: AgentStatus, now_us: int) -> str:
    light = agent.get("light", "ok")
    about = [escape(agent["model"])] if "model" in agent else []
    about += [f"<code>{escape(agent['digest'].removeprefix('sha256:')[:12])}</code>"] if "digest" in agent else []
    about += [_count(agent["decisions"], "decision")] if "decisions" in agent else []
    return (
        f'<article class="card agent"><div class="top"><span class="name">{escape(agent.get("name", ""))}</span>'
        f'<span class="state {_class(light)}">{escape(agent.get("state", light))}</span></div>'
        + (f'<p class="error">{escape(agent["error"])}</p>' if agent.get("error") else "")
        + (_last(agent["last"], now_us) if "last" in agent else '<p class="soft">No decision yet.</p>')
        + (f'<p class="soft">{" · ".join(about)}</p>' if about else "")
        + "</article>"
    )


def _last(last: LastDecision, now_us: int) -> str:
    """What was seen → the rule → what was done."""
    seen = " ".join(part for part in (last.get("subject", ""), last.get("label", "")) if part)
    score = f" {100 * last['score']:.1f} %" if "score" in last else ""
    parts = [f'<span><span class="label">{escape(seen)}</span>{score}</span>']
    parts.append(f'<span class="rule">{escape(last.get("rule") or "no rule, abstained")}</span>')
    parts += [f'<span class="act">{escape(last["action"])}</span>'] if last.get("action") else []
    if "at_us" in last and now_us:
        ago = _duration(max(0, now_us - last["at_us"]) / 1e6)
        parts.append(f'<span class="soft">{ago} ago</span>')
    return f'<p class="said">{"".join(parts)}</p>'


def _class(light: str) -> str:
    """A light as a CSS class, whatever the caller wrote."""
    return light if light in ("ok", "attention", "down") else "attention"


def _clock(now_us: int) -> str:
    return datetime.fromtimestamp(now_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _duration(seconds: float) -> str:
    """The two largest units that matter."""
    for size, unit, smaller, name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min")):
        if seconds >= size:
            rest = int(seconds % size // smaller)
            return f"{int(seconds // size)} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{int(seconds // 60)} min" if seconds >= 60 else f"{int(seconds)} s"


def _size(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _count(number: int, noun: str) -> str:
    # A space that neither breaks the line nor reads as a decimal point anywhere.
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}") + f" {noun}" + ("" if number == 1 else "s")
