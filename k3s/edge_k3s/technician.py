"""The page that lies in every kit, for the person at the site who has never seen this before."""

import textwrap

from edge_k3s.rendering import DATA_FILE, NAMESPACE, SECRETS_FILE
from edge_k3s.spec import KitSpec

_PAGE = """\
SITE {site}
{rule}

This folder makes one site of your company's fleet: {site}. It belongs to this site only. Never copy it to
a second place that runs: two sites with one name disturb each other, and the centre will raise an alarm.

WHAT IS IN IT
  site.yaml      what this site is, whom it talks to, and what its agents may do
  root.json      by which this site knows what your company has signed, and nobody else
  secrets/       passwords. Treat this folder like a key: carry it, use it, do not send it by e-mail
  release/       the models and the rules of release {release}: {agents}
  manifests/     what k3s needs to know to run the site (the file {secrets_file} holds passwords too)
  SHA256SUMS     the fingerprints of all files

FIRST: IS IT WHOLE?
  Open a terminal in this folder and type
      sha256sum -c --quiet SHA256SUMS
  If nothing is printed, it is whole. If a file FAILED, stop and ask for a new kit.

ON A MACHINE WITH k3s
  k3s must be running, with its built-in local-path storage, and must have the image
      {image}
  This kit does not bring k3s or the image. All of this as root, in this folder:
  1. Tell k3s about the site.
      install -m 0600 manifests/*.yaml /var/lib/rancher/k3s/server/manifests/
  2. Copy the models into the volume. It exists about a minute after step 1; until they are there the site starts,
     finds no models, and is started again: that is expected.
      volume=$(kubectl -n {namespace} get pvc site-data -o jsonpath='{{.spec.volumeName}}')
      folder=$(kubectl get pv "$volume" -o jsonpath='{{.spec.hostPath.path}}{{.spec.local.path}}')
      install -d -o 10001 -g 10001 -m 0750 "$folder/release"
      install -o 10001 -g 10001 -m 0440 release/* "$folder/release/"
  3. Start it, and wait until it says "successfully rolled out".
      kubectl -n {namespace} rollout restart deployment/site
      kubectl -n {namespace} rollout status deployment/site --timeout=180s

ON A MACHINE WITHOUT k3s, FOR A TRIAL
      edge-agent run site.yaml
  What the site remembers is then in the folder data/ beside site.yaml.

IF IT DOES NOT WORK
  No network? The site works without one. It goes on deciding and sends what it did when the network is back.
      kubectl -n {namespace} get pods                    is it Running, and 1/1?
      kubectl -n {namespace} logs deployment/site        its last words: send these to your operator
  Never remove {data_file} from k3s's folder, and never delete the volume: the site's memory is in it.
"""


def page(spec: KitSpec) -> str:
    """README.txt of the kit."""
    return _PAGE.format(
        site=spec.site,
        rule="=" * (len(spec.site) + 5),
        release=spec.release,
        agents=_hang(", ".join(agent.name for agent in spec.agents) or "no agents for this site"),
        image=spec.image,
        namespace=NAMESPACE,
        data_file=DATA_FILE,
        secrets_file=SECRETS_FILE,
    )


def _hang(names: str) -> str:
    """The names, on as many lines as they need."""
    lines = textwrap.wrap(names, width=60, break_long_words=False, break_on_hyphens=False)
    return ("\n" + " " * 17).join(lines)
