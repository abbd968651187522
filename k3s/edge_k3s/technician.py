"""The page that lies in every kit, for the person at the site who has never seen this before."""

import textwrap
from datetime import UTC, datetime

from edge_k3s.rendering import DATA_FILE, SECRETS_FILE
from edge_k3s.spec import KitSpec

_PAGE = """\
SITE {site}
{rule}

This folder makes one site of your company's fleet: {site}. It belongs to this site only. Never copy it to
a second place that runs: two sites with one name disturb each other, and the centre will raise an alarm.
{until}
WHAT IS IN IT
  install.sh     does all the work. kit.env says in short what the kit is
  site.yaml      what this site is, whom it talks to, and what its agents may do
  root.json      by which this site knows what your company has signed, and nobody else
  secrets/       passwords. Treat this folder like a key: carry it, use it, do not send it by e-mail
  release/       the models and the rules of release {release}: {agents}
  manifests/     what k3s needs to know to run the site (the file {secrets_file} holds passwords too)
  node/          settings of k3s and of this machine
{airgap}  SHA256SUMS     the fingerprints of all files{signature}

MAKE THE MACHINE A NODE
  You need {machine},
  with Linux and systemd, its clock set, and its network plugged in. {k3s}
{key}  Open a terminal in this folder and type
      sudo sh install.sh --dry-run      says what it would do, and changes nothing
      sudo sh install.sh                does it. Some minutes later it says "this machine is a node of {site}"
  Something went wrong, or the power failed in the middle? Type it again: it goes on where it stopped.
  It ends with one line that begins with "error:"? That line says what to do.

IS IT WELL?
      sudo k3s kubectl -n edge-agent get pods                 is it Running, and 1/1?
      sudo k3s kubectl -n edge-agent logs deployment/site     its last words: send these to your operator
  No network? The site works without one. It goes on deciding and sends what it did when the network is back.
  Never remove {data_file} from k3s's folder, and never delete the volume: the site's memory is in it.

AFTERWARDS
  The machine no longer needs this folder. Give it back to your operator, or destroy it: it holds secrets.
  To take the site away again:
      sudo sh /var/lib/edge-agent-kit/install.sh --uninstall             what it remembers stays on the disk
      sudo sh /var/lib/edge-agent-kit/install.sh --uninstall --purge     nothing stays
  The second line can also be typed later, after the first one. Until then this machine takes kits of {site} only.

ON A MACHINE WITHOUT k3s, FOR A TRIAL
      edge-agent run site.yaml
  What the site remembers is then in the folder data/ beside site.yaml.
"""

_AIRGAP = "  airgap/        {what}\n"
_KEY = """\
  Did your operator give you a file operator.pem? Put it here, and before anything else type
      openssl pkeyutl -verify -rawin -pubin -inkey operator.pem -in SHA256SUMS -sigfile SHA256SUMS.sig \\
        && sha256sum -c --quiet SHA256SUMS
  It has to say "Signature Verified Successfully", and not one line more. If not, do not use this kit: not even its
  install.sh is then your operator's.
  Did your operator tell you a key, 64 digits and letters from a to f? Then add it to both lines below, as in
      sudo sh install.sh --key KEY
  and a kit that another key signed is refused. You were given neither? Ask your operator for the key, by telephone.
"""
_UNSIGNED = """\
  This kit is not signed: install.sh says so too, and sees whether it is whole, but not who made it. Use it only if it
  came to you from your operator's own hand. If your operator told you a key to type, it is the wrong kit.
"""
_K3S_COMES = "k3s comes with this kit."
_K3S_HAS_TO_BE_THERE = (
    "k3s does not come with this\n  kit, and nothing here fetches it: it has to be on the machine before. "
    "Where it is not, install.sh says so and stops."
)
_UNTIL = "It has to be installed, with a network, by {day}: until then it can join the centre. It can do so once.\n"


def page(spec: KitSpec, signed: bool = False) -> str:
    """README.txt of the kit."""
    brings = [each.name for each in spec.machine.cargo]
    k3s = _K3S_COMES if "k3s" in brings else _K3S_HAS_TO_BE_THERE
    if not any(".tar" in name for name in brings):
        k3s += f"\n  k3s must have the image {spec.image}, or be able to fetch it."
    return _PAGE.format(
        site=spec.site,
        rule="=" * (len(spec.site) + 5),
        until=_until(spec),
        release=spec.release or "-",
        agents=_hang(", ".join(agent.name for agent in spec.agents) or "no agents for this site"),
        secrets_file=SECRETS_FILE,
        data_file=DATA_FILE,
        airgap=_AIRGAP.format(what=_hang(", ".join(brings))) if brings else "",
        signature=", and SHA256SUMS.sig your operator's signature" if signed else "",
        machine="a machine with two processor cores, 2 GB of memory and free disk (install.sh says how much)",
        k3s=k3s,
        key=_KEY if signed else _UNSIGNED,
    )


def _until(spec: KitSpec) -> str:
    if spec.enrol is None:
        return ""
    return _UNTIL.format(day=f"{datetime.fromtimestamp(spec.enrol.expires_us / 1e6, UTC):%d %B %Y}")


def _hang(names: str) -> str:
    """The names, on as many lines as they need."""
    lines = textwrap.wrap(names, width=60, break_long_words=False, break_on_hyphens=False)
    return ("\n" + " " * 17).join(lines)
