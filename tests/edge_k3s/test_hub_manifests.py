"""A hub's manifests, from the file that an operator writes to the objects a cluster takes."""

import base64
import dataclasses
import json
import os
import re
import shutil
import stat
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml
from typer.testing import CliRunner

from edge_cli.hub_manifests import command, hub_spec
from edge_k3s.hub.rendering import DATA_FILE, HUB_FILE, MONITORING_FILE, SECRETS_FILE, render_hub
from edge_k3s.hub.spec import HubSpec, Secrets
from edge_k3s.hub.writing import write_hub
from edge_models.errors import ConfigError

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = ["1.32", kubernetes_validate.latest_version()]
OTHERS = {"ServiceMonitor", "ExternalSecret"}
"""Kinds that Kubernetes has no schema of."""

Object = dict[str, Any]
Objects = dict[tuple[str, str], Object]

SMALL = """\
image: edge-agent-kit-hub:0.1.0-0123456789ab
names: [hub.example.com]
"""
"""The least: everything the hub's own, its API by `kubectl port-forward`."""

OWN = """\
image: registry.example.com/edge-agent-kit-hub:0.1.0-0123456789ab
proxy_image: haproxy:3.0.12
names: [hub.example.com, 198.51.100.7]
workers: 4
sites:
  networks: [203.0.113.0/24, 2001:db8::/48]
api:
  host: api.hub.example.com
  ingress_class: nginx
  namespace: ingress-nginx
  tls: {cert_file: tls/api.pem, key_file: tls/api.key}
database:
  url: postgresql://hub@hub-rw.databases.svc/hub
  ca_file: tls/database-ca.pem
secrets:
  files:
    operator.token: secrets/operator.token
    pgpass: secrets/pgpass
storage: {class: fast, data: 200Gi}
monitoring: {namespace: watch}
"""
"""The hub's own broker, PostgreSQL in the cluster, secrets from files."""

ELSEWHERE = """\
image: edge-agent-kit-hub:0.1.0-0123456789ab
proxy_image: haproxy:3.0.12
workers: 2
api:
  host: api.hub.example.com
  ingress_class: traefik
  networks: [198.51.100.0/28]
  tls: {secret: api-certificate, cluster_issuer: letsencrypt}
broker:
  url: mqtts://mqtt.example.com
  ca_file: tls/broker-ca.pem
  networks: [203.0.113.16/28]
database:
  url: postgresql://hub@192.0.2.5:5433/hub?sslmode=verify-full&sslrootcert=system
secrets:
  store:
    name: vault
    keys:
      operator.token: edge/hub#token
      pgpass: edge/pgpass
      _hub.password: edge/broker#hub
      _hub-1.password: edge/broker#hub-1
      _hub-2.password: edge/broker#hub-2
"""
"""Broker, database and secrets that somebody else runs."""

SCALED = """\
image: edge-agent-kit-hub:0.1.0-0123456789ab
proxy_image: haproxy:3.0.12
workers: 2
worker_pods: {least: 2, most: 6, cpu_percent: 60}
broker: {url: "mqtts://mqtt.brokers.svc:8884"}
database:
  url: postgresql://hub@hub-rw.databases.svc/hub
  ca_file: tls/database-ca.pem
secrets: {existing: sealed-hub}
"""
"""As many pods that take in as there is work for."""

HUBS = {"hub-small": SMALL, "hub-own": OWN, "hub-elsewhere": ELSEWHERE, "hub-scaled": SCALED}

FILES = {
    "tls/api.pem": "-----BEGIN CERTIFICATE-----\napi\n-----END CERTIFICATE-----\n",
    "tls/api.key": "the API's key: ruff",
    "tls/database-ca.pem": "-----BEGIN CERTIFICATE-----\ndatabase\n-----END CERTIFICATE-----\n",
    "tls/broker-ca.pem": "-----BEGIN CERTIFICATE-----\nbroker\n-----END CERTIFICATE-----\n",
    "secrets/operator.token": "operator's secret: knot\n",
    "secrets/pgpass": "*:*:*:hub:database secret: godwit\n",
}
SECRET = ("tls/api.key", "secrets/operator.token", "secrets/pgpass")


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """The operator's folder, with the files that hubs name."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def spec_of(desk: Path, text: str) -> HubSpec:
    (desk / "hub.yaml").write_text(text)
    return hub_spec(desk / "hub.yaml")


@pytest.fixture
def small(desk: Path) -> HubSpec:
    return spec_of(desk, SMALL)


@pytest.fixture
def own(desk: Path) -> HubSpec:
    return spec_of(desk, OWN)


@pytest.fixture
def elsewhere(desk: Path) -> HubSpec:
    return spec_of(desk, ELSEWHERE)


@pytest.fixture
def scaled(desk: Path) -> HubSpec:
    return spec_of(desk, SCALED)


@pytest.fixture(params=HUBS)
def each(request: pytest.FixtureRequest, desk: Path) -> HubSpec:
    return spec_of(desk, HUBS[request.param])


def objects(spec: HubSpec) -> Objects:
    items = [item for text in render_hub(spec).values() for item in yaml.safe_load_all(text)]
    found = {(item["kind"], item["metadata"]["name"]): item for item in items}
    assert len(found) == len(items)
    return found


def pod_of(spec: HubSpec) -> Object:
    pod: Object = objects(spec)["Deployment", "hub"]["spec"]["template"]["spec"]
    return pod


def pods_of(spec: HubSpec) -> list[Object]:
    return [item["spec"]["template"]["spec"] for item in objects(spec).values() if "template" in item.get("spec", {})]


def container(pod: Object, name: str) -> Object:
    return next(each for each in (*pod["containers"], *pod.get("initContainers", ())) if each["name"] == name)


def options(spec: HubSpec) -> list[tuple[str, str]]:
    """The options of `hub serve`, in pairs."""
    words = container(pod_of(spec), "hub")["command"]
    assert words[:4] == ["edge-agent", "hub", "serve", "/var/lib/edge-hub/hub"]
    return list(zip(words[4::2], words[5::2], strict=True))


def without_secrets(text: str) -> str:
    for name in SECRET:
        text = text.replace(base64.b64encode(FILES[name].encode()).decode(), f"<{name} in base64>")
    return text


@pytest.mark.parametrize("name", HUBS)
def test_the_manifests_are_the_golden_ones(desk: Path, name: str) -> None:
    """After a change that is meant: EDGE_UPDATE_GOLDEN=1 writes the golden files anew; read their diff."""
    write_hub(spec_of(desk, HUBS[name]), desk / "out")
    made = {path.name: without_secrets(path.read_text()) for path in (desk / "out").iterdir()}
    if os.environ.get("EDGE_UPDATE_GOLDEN"):
        shutil.rmtree(GOLDEN / name, ignore_errors=True)
        (GOLDEN / name).mkdir(parents=True)
        for file, text in made.items():
            (GOLDEN / name / file).write_text(text)
    assert made == {path.name: path.read_text() for path in (GOLDEN / name).iterdir()}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_in_the_oldest_and_newest_kubernetes(each: HubSpec, version: str) -> None:
    """But those of operators, of which Kubernetes itself knows nothing."""
    for (kind, _), item in objects(each).items():
        if kind not in OTHERS:
            assert kubernetes_validate.validate(item, version, strict=True) == ".".join(version.split(".")[:2])


def test_the_restricted_standard_is_enforced_and_met(each: HubSpec) -> None:
    labels = objects(each)["Namespace", "edge-hub"]["metadata"]["labels"]
    assert {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")} == {"restricted"}
    for pod in pods_of(each):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
        allowed = {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}
        assert all(set(volume) - {"name"} <= allowed for volume in pod["volumes"])
    for one in (one for pod in pods_of(each) for one in (*pod["containers"], *pod.get("initContainers", ()))):
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(one["resources"]["limits"]) == {"cpu", "memory", "ephemeral-storage"}


def test_what_is_mounted_is_there_and_what_is_there_is_mounted(each: HubSpec) -> None:
    found = objects(each)
    made = {item["spec"]["target"]["name"] for (kind, _), item in found.items() if kind == "ExternalSecret"}
    made |= {each.secrets.existing}
    for pod in pods_of(each):
        all_of_it = (*pod["containers"], *pod.get("initContainers", ()))
        mounted = {mount["name"] for one in all_of_it for mount in one["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        for volume in pod["volumes"]:
            match volume:
                case {"configMap": {"name": name}}:
                    assert ("ConfigMap", name) in found
                case {"persistentVolumeClaim": {"claimName": name}}:
                    assert ("PersistentVolumeClaim", name) in found
                case {"secret": {"secretName": name}}:
                    assert ("Secret", name) in found or name in made


def test_one_hub_claims_its_volume(each: HubSpec) -> None:
    found = objects(each)
    deployment = found["Deployment", "hub"]["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    claims = [item for (kind, _), item in found.items() if kind == "PersistentVolumeClaim"]
    assert all(claim["spec"]["accessModes"] == ["ReadWriteOncePod"] for claim in claims)
    budget = found["PodDisruptionBudget", "hub"]["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    scaled = {item["spec"]["scaleTargetRef"]["kind"] for (kind, _), item in found.items() if kind.startswith("Horiz")}
    assert scaled <= {"StatefulSet"}  # the hub itself never


def test_workers_in_pods_of_their_own_have_the_numbers_that_the_hubs_pod_has_not(scaled: HubSpec) -> None:
    found = objects(scaled)
    workers = found["StatefulSet", "workers"]["spec"]
    assert "replicas" not in workers  # the autoscaler's: a number here would be fought over at each apply
    assert dict(options(scaled))["--workers"] == "2"
    assert workers["ordinals"] == {"start": 3}
    scaling = found["HorizontalPodAutoscaler", "workers"]["spec"]
    assert (scaling["minReplicas"], scaling["maxReplicas"]) == (2, 6)
    assert scaling["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "workers"}
    assert scaling["metrics"][0]["resource"]["target"]["averageUtilization"] == 60
    pod = workers["template"]["spec"]
    assert container(pod, "worker")["resources"]["requests"]["cpu"]  # what a percentage is of
    labels = workers["template"]["metadata"]["labels"].items()
    for kind, where in (
        ("StatefulSet", "selector"),
        ("PodDisruptionBudget", "selector"),
        ("NetworkPolicy", "podSelector"),
    ):
        wanted = found[kind, "workers"]["spec"][where]["matchLabels"].items()
        assert wanted <= labels
        assert not wanted <= found["Deployment", "hub"]["spec"]["template"]["metadata"]["labels"].items()
    assert not found["PodDisruptionBudget", "hub"]["spec"]["selector"]["matchLabels"].items() <= labels
    assert not found["NetworkPolicy", "hub"]["spec"]["podSelector"]["matchLabels"].items() <= labels


def test_workers_are_told_where_broker_and_database_are_and_reach_nothing_else(scaled: HubSpec) -> None:
    found = objects(scaled)
    worker = container(found["StatefulSet", "workers"]["spec"]["template"]["spec"], "worker")
    assert worker["command"][:4] == ["edge-agent", "hub", "work", "/var/lib/edge-hub/hub"]
    servers = worker["command"][4:]
    hub = container(pod_of(scaled), "hub")
    assert servers == hub["command"][-len(servers) :]
    assert servers[::2] == ["--broker", "--database"]
    assert worker["env"] == hub["env"]
    assert not {"ports", "livenessProbe"} & set(worker)
    policy = found["NetworkPolicy", "workers"]["spec"]
    assert (policy["policyTypes"], "ingress" in policy) == (["Ingress", "Egress"], False)
    assert policy["egress"] == found["NetworkPolicy", "hub"]["spec"]["egress"]
    assert reached(policy["egress"], "to")[8884] == [namespace("brokers")]
    assert "ca" not in {mount["name"] for mount in worker["volumeMounts"]}


def test_volumes_are_in_a_file_of_their_own(own: HubSpec) -> None:
    kinds = {name: [item["kind"] for item in yaml.safe_load_all(text)] for name, text in render_hub(own).items()}
    assert list(kinds) == [DATA_FILE, SECRETS_FILE, HUB_FILE, MONITORING_FILE]
    assert kinds[DATA_FILE] == ["Namespace", "PersistentVolumeClaim", "PersistentVolumeClaim"]
    assert kinds[SECRETS_FILE] == ["Secret", "Secret"]
    assert kinds[MONITORING_FILE] == ["ServiceMonitor"]
    [data, ca] = [item for (kind, _), item in objects(own).items() if kind == "PersistentVolumeClaim"]
    assert (data["spec"]["resources"]["requests"]["storage"], data["spec"]["storageClassName"]) == ("200Gi", "fast")
    assert (ca["metadata"]["name"], ca["spec"]["storageClassName"]) == ("hub-ca", "fast")


def test_the_hub_is_told_what_the_file_says(small: HubSpec, own: HubSpec, elsewhere: HubSpec) -> None:
    entrance = [("--mqtts", "0.0.0.0:8883"), ("--enrol", "0.0.0.0:8443"), ("--ca", "/var/lib/edge-hub-ca/ca")]
    assert options(small) == [
        ("--http", "127.0.0.1:8600"), ("--workers", "1"), *entrance, ("--name", "hub.example.com"),
    ]  # fmt: skip
    url = "postgresql://hub@hub-rw.databases.svc/hub"
    assert options(own) == [
        ("--http", "127.0.0.1:8600"),
        ("--workers", "4"),
        *entrance,
        ("--name", "hub.example.com"),
        ("--name", "198.51.100.7"),
        ("--database", f"{url}?sslmode=verify-full&sslrootcert=/etc/edge-hub/config/database-ca.pem"),
    ]
    assert options(elsewhere) == [
        ("--http", "127.0.0.1:8600"),
        ("--workers", "2"),
        ("--broker", "mqtts://mqtt.example.com"),
        ("--database", "postgresql://hub@192.0.2.5:5433/hub?sslmode=verify-full&sslrootcert=system"),
    ]


def test_the_password_of_the_database_is_a_file_that_libpq_reads(own: HubSpec, small: HubSpec) -> None:
    pod = pod_of(own)
    taking = container(pod, "secrets")
    assert taking["command"][:3] == ["edge-agent", "hub", "take-secrets"]
    source, folder, _, run = taking["command"][3:]
    mounts = {mount["name"]: mount["mountPath"] for mount in taking["volumeMounts"]}
    assert (source, run) == (mounts["secrets"], mounts["run"])
    assert Path(folder).parent == Path(mounts["data"])
    environment = {each["name"]: each["value"] for each in container(pod, "hub")["env"]}
    assert environment["PGPASSFILE"] == f"{run}/pgpass"
    assert next(m["mountPath"] for m in container(pod, "hub")["volumeMounts"] if m["name"] == "run") == run
    secrets = objects(own)["Secret", "hub-secrets"]["data"]
    assert base64.b64decode(secrets["pgpass"]).decode() == FILES["secrets/pgpass"]
    assert "initContainers" not in pod_of(small)
    assert "PGPASSFILE" not in {each["name"] for each in container(pod_of(small), "hub")["env"]}


def test_no_secret_is_in_the_hubs_environment_or_in_a_file_that_can_be_shown(own: HubSpec) -> None:
    texts = render_hub(own)
    for name in SECRET:
        plain, coded = FILES[name].strip(), base64.b64encode(FILES[name].encode()).decode()
        assert not any(plain in text for text in texts.values())
        assert [file for file, text in texts.items() if coded in text] == [SECRETS_FILE]
        assert plain not in repr(own)
    assert all("valueFrom" not in each for one in pod_of(own)["containers"] for each in one.get("env", ()))


def test_a_store_outside_is_asked_and_holds_the_only_values(elsewhere: HubSpec) -> None:
    found = objects(elsewhere)
    assert not any(kind == "Secret" for kind, _ in found)
    asked = found["ExternalSecret", "hub-secrets"]
    assert asked["apiVersion"] == "external-secrets.io/v1"
    assert asked["spec"]["secretStoreRef"] == {"name": "vault", "kind": "ClusterSecretStore"}
    references = {each["secretKey"]: each["remoteRef"] for each in asked["spec"]["data"]}
    assert references["operator.token"] == {"key": "edge/hub", "property": "token"}
    assert references["pgpass"] == {"key": "edge/pgpass"}
    mounted = next(volume for volume in pod_of(elsewhere)["volumes"] if volume["name"] == "secrets")
    assert mounted["secret"]["secretName"] == asked["spec"]["target"]["name"]


def test_a_secret_that_somebody_else_makes_is_mounted(desk: Path) -> None:
    spec = spec_of(desk, SMALL + "secrets: {existing: sealed-hub}\n")
    assert SECRETS_FILE not in render_hub(spec)
    volume = next(volume for volume in pod_of(spec)["volumes"] if volume["name"] == "secrets")
    assert volume["secret"]["secretName"] == "sealed-hub"


def reached(rules: list[Object], side: str) -> dict[int, list[Object]]:
    """Port → who is on the other side."""
    return {port["port"]: rule[side] for rule in rules for port in rule["ports"]}


def namespace(name: str) -> Object:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def test_who_reaches_the_pod(small: HubSpec, own: HubSpec, elsewhere: HubSpec) -> None:
    def asking(spec: HubSpec) -> dict[int, list[Object]]:
        return reached(objects(spec)["NetworkPolicy", "hub"]["spec"]["ingress"], "from")

    anywhere = [{"ipBlock": {"cidr": "0.0.0.0/0"}}, {"ipBlock": {"cidr": "::/0"}}]
    assert asking(small) == {8883: anywhere, 8443: anywhere}
    sites = [{"ipBlock": {"cidr": "203.0.113.0/24"}}, {"ipBlock": {"cidr": "2001:db8::/48"}}]
    assert asking(own) == {
        8883: sites,
        8443: sites,
        8601: [namespace("ingress-nginx")],
        8602: [namespace("watch")],
    }
    assert asking(elsewhere) == {8601: [{"ipBlock": {"cidr": "198.51.100.0/28"}}]}


def test_whom_the_pod_reaches(small: HubSpec, own: HubSpec, elsewhere: HubSpec) -> None:
    def out(spec: HubSpec) -> dict[int, list[Object]]:
        found = reached(objects(spec)["NetworkPolicy", "hub"]["spec"]["egress"], "to")
        assert found.pop(53)
        return found

    assert out(small) == {}
    assert out(own) == {5432: [namespace("databases")]}
    assert out(elsewhere) == {
        8883: [{"ipBlock": {"cidr": "203.0.113.16/28"}}],
        5433: [{"ipBlock": {"cidr": "192.0.2.5/32"}}],
    }


def test_nothing_else_of_the_namespace_reaches_anything(each: HubSpec) -> None:
    policy = objects(each)["NetworkPolicy", "deny-all"]["spec"]
    assert policy == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_services_and_selectors_find_the_pod_and_its_ports(each: HubSpec) -> None:
    found = objects(each)
    template = found["Deployment", "hub"]["spec"]["template"]
    labels = template["metadata"]["labels"].items()
    ports = {
        port["name"]: port["containerPort"] for one in template["spec"]["containers"] for port in one.get("ports", ())
    }
    for (kind, name), item in found.items():
        if kind == "Service" and name != "workers":
            assert item["spec"]["selector"].items() <= labels
            assert all(port["targetPort"] in ports for port in item["spec"]["ports"])
    assert found["Deployment", "hub"]["spec"]["selector"]["matchLabels"].items() <= labels
    assert found["PodDisruptionBudget", "hub"]["spec"]["selector"]["matchLabels"].items() <= labels
    assert found["NetworkPolicy", "hub"]["spec"]["podSelector"]["matchLabels"].items() <= labels
    if ("Service", "sites") in found:
        # Sites are told the hub's own port, so it has to be the one outside.
        for port in found["Service", "sites"]["spec"]["ports"]:
            assert port["port"] == ports[port["targetPort"]]
        assert found["Service", "sites"]["spec"]["externalTrafficPolicy"] == "Local"


def test_node_ports_are_what_the_hub_listens_on(desk: Path) -> None:
    spec = spec_of(desk, SMALL + "sites: {service: NodePort, mqtts_port: 31883, enrol_port: 31443}\n")
    service = objects(spec)["Service", "sites"]["spec"]
    assert service["type"] == "NodePort"
    assert [(port["port"], port["nodePort"]) for port in service["ports"]] == [(31883, 31883), (31443, 31443)]
    assert [port["containerPort"] for port in container(pod_of(spec), "hub")["ports"]] == [31883, 31443]
    assert dict(options(spec))["--mqtts"] == "0.0.0.0:31883"
    assert set(reached(objects(spec)["NetworkPolicy", "hub"]["spec"]["ingress"], "from")) == {31883, 31443}


def test_the_ingress_ends_tls_for_the_api(own: HubSpec, elsewhere: HubSpec, small: HubSpec) -> None:
    ingress = objects(own)["Ingress", "api"]
    assert ingress["spec"]["ingressClassName"] == "nginx"
    assert ingress["spec"]["tls"] == [{"hosts": ["api.hub.example.com"], "secretName": "hub-api-tls"}]
    [rule] = ingress["spec"]["rules"]
    service = rule["http"]["paths"][0]["backend"]["service"]
    ports = {port["name"] for port in objects(own)["Service", service["name"]]["spec"]["ports"]}
    assert (rule["host"], service["port"]["name"] in ports) == ("api.hub.example.com", True)
    certificate = objects(own)["Secret", "hub-api-tls"]
    assert certificate["type"] == "kubernetes.io/tls"
    assert base64.b64decode(certificate["data"]["tls.key"]).decode() == FILES["tls/api.key"]
    issued = objects(elsewhere)["Ingress", "api"]
    assert issued["metadata"]["annotations"]["cert-manager.io/cluster-issuer"] == "letsencrypt"
    assert issued["spec"]["tls"][0]["secretName"] == "api-certificate"
    assert not {("Ingress", "api"), ("Service", "api"), ("ConfigMap", "hub-proxy")} & set(objects(small))
    assert [one["name"] for one in pod_of(small)["containers"]] == ["hub"]


def test_the_authority_is_on_a_volume_of_its_own_and_not_where_the_broker_is_elsewhere(
    own: HubSpec, elsewhere: HubSpec
) -> None:
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in container(pod_of(own), "hub")["volumeMounts"]}
    assert Path(dict(options(own))["--ca"]).parent == mounts["ca"]
    assert not mounts["ca"].is_relative_to(mounts["data"])
    assert "ca" not in {mount["name"] for mount in container(pod_of(own), "proxy")["volumeMounts"]}
    assert ("PersistentVolumeClaim", "hub-ca") not in objects(elsewhere)
    assert "ca" not in {volume["name"] for volume in pod_of(elsewhere)["volumes"]}


def test_a_broker_elsewhere_is_known_by_its_authority(elsewhere: HubSpec) -> None:
    hub = container(pod_of(elsewhere), "hub")
    environment = {each["name"]: each["value"] for each in hub["env"]}
    mount = next(mount["mountPath"] for mount in hub["volumeMounts"] if mount["name"] == "config")
    assert environment["SSL_CERT_FILE"] == f"{mount}/broker-ca.pem"
    assert objects(elsewhere)["ConfigMap", "hub-config"]["data"] == {"broker-ca.pem": FILES["tls/broker-ca.pem"]}
    # Nothing of the hub's own listens on the pod's address then.
    assert {hub[probe]["httpGet"]["port"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")} == {8601}


def test_a_changed_secret_replaces_the_pod(own: HubSpec) -> None:
    other = dataclasses.replace(own, secrets=Secrets({**own.secrets.values, "operator.token": "another"}))
    marks = [objects(each)["Deployment", "hub"]["spec"]["template"]["metadata"]["annotations"] for each in (own, other)]
    assert marks[0] != marks[1]


API = "api: {host: a.example, ingress_class: nginx, namespace: ingress}\n"
PROXY = "proxy_image: haproxy:3.0.12\n"
BROKER = "broker: {url: 'mqtts://mqtt.example.com'}\n"
NAMELESS = "image: hub:1\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image: hub:1\nnames: []\n", "names: name at least one DNS name"),
        ("image: hub:latest\nnames: [h]\n", "image 'hub:latest'"),
        ("image: hub:1\nnames: [Hub]\n", "names 'Hub': write a DNS name in lower case"),
        (SMALL + "nmae: x\n", "hub.yaml: unknown key 'nmae' (did you mean 'names'?)"),
        (SMALL + "workers: 0\n", "workers: Input should be greater than or equal to 1"),
        (SMALL + API, "proxy_image: name an image of HAProxy"),
        (SMALL + "monitoring: {namespace: watch}\n", "proxy_image: name an image of HAProxy"),
        (SMALL + PROXY + "api: {host: a.example, ingress_class: nginx}\n", "api: say by `namespace` or `networks`"),
        (SMALL + PROXY + "api: {host: a.example, ingress_class: nginx, namespace: i, tls: {cert_file: tls/api.pem}}\n",
         "api.tls: `cert_file` and `key_file` go together"),
        (SMALL + "sites: {service: NodePort}\n", "sites.mqtts_port 8883: a NodePort is one of 30000 to 32767"),
        (SMALL + "sites: {enrol_port: 8883}\n", "sites.enrol_port 8883: is the port of MQTT too"),
        (SMALL + "sites: {enrol_port: 443}\n", "sites.enrol_port 443: use one from 1024 on"),
        (SMALL + "sites: {enrol_port: 8600}\n", "sites.enrol_port 8600: use one from 1024 on"),
        (SMALL + "sites: {networks: [everywhere]}\n", "network 'everywhere'"),
        (SMALL + "storage: {data: much}\n", "storage.data 'much': write a size as in 50Gi"),
        (SMALL + "secrets: {existing: a, files: {pgpass: secrets/pgpass}}\n", "secrets: give `files`, `store` or"),
        (SMALL + "secrets: {files: {root.key: secrets/pgpass}}\n", "secrets: 'root.key' has no place in a hub"),
        (SMALL + "secrets: {files: {pgpass: nowhere}}\n", "secrets.files.pgpass nowhere: No such file"),
        (SMALL + PROXY + BROKER, "names: sites do not reach this hub"),
        (NAMELESS + BROKER, "proxy_image: name an image of HAProxy"),
        (NAMELESS + PROXY + BROKER, "secrets: '_hub.password' is missing"),
        (NAMELESS + PROXY + BROKER + "workers: 2\nsecrets: {files: {_hub.password: secrets/pgpass}}\n",
         "secrets: '_hub-1.password' is missing"),
        (SMALL + "workers: 2\nworker_pods: {most: 3}\n", "worker_pods: name a `broker` and a `database` elsewhere"),
        (SCALED.replace("workers: 2", "workers: 1"), "workers 1: write 2 or more beside `worker_pods`"),
        (SCALED.replace("least: 2", "least: 7"), "worker_pods: 7 to 6: write at least one"),
        (SCALED.replace("most: 6", "most: 98"), "worker_pods.most 98: with those of the hub's pod 99 is the most"),
        (ELSEWHERE + "worker_pods: {most: 1}\n", "secrets: '_hub-3.password' is missing"),
        (ELSEWHERE.replace("workers: 2", "workers: 2\nworker_pods: {most: 1}") + "      _hub-3.password: x\n",
         "secrets: 'director.key' is missing: workers in other pods sign as the hub does"),
        (NAMELESS + PROXY + "broker: {url: 'mqtt://mqtt.example.com'}\n", "use mqtts://"),
        (SMALL + "database: {url: 'postgresql://hub:secret@db/hub'}\n", "with the password in the secret pgpass"),
        (SMALL + "database: {url: 'mysql://hub@db/hub'}\n", "write postgresql://USER@HOST/DATABASE"),
        (SMALL + "database: {url: 'postgresql://hub@db/hub'}\n", "it is asked over TLS only"),
        (SMALL + "database: {url: 'postgresql://hub@db/hub?sslmode=prefer'}\n", "it is asked over TLS only"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_line_and_leaves_nothing(desk: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        write_hub(spec_of(desk, text), desk / "out")
    assert not (desk / "out").exists()


def test_what_is_there_stays(small: HubSpec, desk: Path) -> None:
    (desk / "out").mkdir()
    (desk / "out" / "note.txt").write_text("mine")
    with pytest.raises(ConfigError, match="something is there already"):
        write_hub(small, desk / "out")
    assert [path.name for path in (desk / "out").iterdir()] == ["note.txt"]


def test_only_the_owner_reads_secrets(own: HubSpec, desk: Path) -> None:
    write_hub(own, desk / "out")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (desk / "out").iterdir()}
    assert modes == {DATA_FILE: 0o644, SECRETS_FILE: 0o600, HUB_FILE: 0o644, MONITORING_FILE: 0o644}
    assert not [path for path in desk.iterdir() if path.name.endswith(".part")]


def test_what_to_mind_is_said(small: HubSpec, own: HubSpec, elsewhere: HubSpec, desk: Path) -> None:
    assert own.database is not None
    url = "postgresql://hub@db.example.com/hub"
    open_database = dataclasses.replace(own.database, host="db.example.com", url=url)
    said = {
        name: " / ".join(write_hub(spec, desk / name).warnings)
        for name, spec in {
            "small": small,
            "own": own,
            "elsewhere": elsewhere,
            "open": dataclasses.replace(own, database=open_database),
        }.items()
    }
    assert "no operator.token is given" in said["small"]
    assert "no operator.token" not in said["own"]
    assert "beside its keys, as the same user" in said["small"]
    assert "holds secrets as anybody can read them" in said["own"]
    assert "by password: enrolment needs the hub's own broker" in said["elsewhere"]
    assert "at any address" not in said["own"] + said["elsewhere"] + said["small"]
    assert "postgresql://hub@db.example.com/hub at any address" in said["open"]


def test_the_command_writes_them_and_says_what_comes_next(desk: Path) -> None:
    app = typer.Typer()
    app.command()(command)
    (desk / "hub.yaml").write_text(OWN)
    done = CliRunner().invoke(app, [str(desk / "hub.yaml"), "--out", str(desk / "out"), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["files"] == sorted(path.name for path in (desk / "out").iterdir())
    assert any("secrets" in line for line in said["warnings"])


def test_the_file_in_the_documentation_is_right(desk: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "central-cluster.md").read_text()
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    written = write_hub(spec_of(desk, block), desk / "out")
    assert written.warnings == (
        "the hub's own broker runs beside its keys, as the same user: whoever takes it over can read them",
    )
