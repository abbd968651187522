import base64
import dataclasses
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.config import load_site
from edge_k3s.bases import base_folder, read_base
from edge_k3s.rendering import DATA_FILE, MONITORING_FILE, SECRETS_FILE, SENSORS_FILE, SITE_FILE, render
from edge_k3s.spec import Account, Enrolment, KitSpec, PodOptions, SensorBroker
from edge_models.errors import ConfigError

OLDEST, NEWEST = "1.32", kubernetes_validate.latest_version()
"""k3s 1.32 is the oldest we support: it is the first to import images that are added while it runs."""

Object = dict[str, Any]


def objects_of(text: str) -> list[Object]:
    return list(yaml.safe_load_all(text))


def by_name(spec: KitSpec) -> dict[tuple[str, str], Object]:
    found = [item for text in render(spec).values() for item in objects_of(text)]
    return {(item["kind"], item["metadata"]["name"]): item for item in found}


SENSORS = SensorBroker(
    image="mosquitto:2.0.22",
    networks=("192.0.2.0/24",),
    users={"_local_plant-07": "$7$1000$c2FsdA==$aGFzaA==", "sensors": "$7$1000$dGxhcw==$aHNhaA=="},
)


@pytest.fixture
def equipped(spec: KitSpec) -> KitSpec:
    """A site with everything a pod can be given, which enrols."""
    enrol = Enrolment(url="https://hub.example:8443", host="hub.example", port=8443, token="EK1 token", expires_us=1)
    pod = PodOptions(gpus=2, sensors=SENSORS, monitoring="watch")
    return dataclasses.replace(spec, pod=pod, enrol=enrol, hub=dataclasses.replace(spec.hub, password=None))


@pytest.fixture(params=["plain", "equipped"])
def either(request: pytest.FixtureRequest, spec: KitSpec, equipped: KitSpec) -> KitSpec:
    return spec if request.param == "plain" else equipped


@pytest.fixture
def pod(spec: KitSpec) -> Object:
    template: Object = by_name(spec)["Deployment", "site"]["spec"]["template"]["spec"]
    return template


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_is_valid_in_the_oldest_and_newest_kubernetes(either: KitSpec, version: str) -> None:
    """But a ServiceMonitor, of which Kubernetes itself knows nothing."""
    items = [item for (kind, _), item in by_name(either).items() if kind != "ServiceMonitor"]
    for item in items:
        assert kubernetes_validate.validate(item, version, strict=True) == ".".join(version.split(".")[:2])


def test_the_validator_would_object(spec: KitSpec) -> None:
    deployment = by_name(spec)["Deployment", "site"]
    deployment["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, OLDEST, strict=True)


def test_the_volume_and_its_namespace_have_a_file_of_their_own(spec: KitSpec) -> None:
    kinds = {name: [item["kind"] for item in objects_of(text)] for name, text in render(spec).items()}
    assert kinds == {
        DATA_FILE: ["Namespace", "PersistentVolumeClaim"],
        SECRETS_FILE: ["Secret"],
        SITE_FILE: [
            "ConfigMap",
            "PriorityClass",
            "ServiceAccount",
            "NetworkPolicy",
            "NetworkPolicy",
            "PodDisruptionBudget",
            "Deployment",
        ],
    }


def test_what_not_every_site_has_stands_in_files_of_its_own(equipped: KitSpec) -> None:
    kinds = {name: [item["kind"] for item in objects_of(text)] for name, text in render(equipped).items()}
    assert kinds[SECRETS_FILE] == ["Secret", "Secret"]
    assert kinds[SENSORS_FILE] == ["ConfigMap", "NetworkPolicy", "NetworkPolicy", "Service", "Deployment"]
    assert kinds[MONITORING_FILE] == ["Service", "NetworkPolicy", "ServiceMonitor"]


def test_file_names_are_told_apart_by_k3s(equipped: KitSpec) -> None:
    stems = [name.split(".", 1)[0] for name in render(equipped)]
    assert len(set(stems)) == len(stems)
    assert not any("_" in stem or stem.startswith(".") for stem in stems)


def test_the_namespace_admits_restricted_pods_only(spec: KitSpec) -> None:
    labels = by_name(spec)["Namespace", "edge-agent"]["metadata"]["labels"]
    assert {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")} == {"restricted"}


@pytest.mark.parametrize("name", ["site", "sensors"])
def test_the_pod_meets_the_restricted_standard(equipped: KitSpec, name: str) -> None:
    pod = by_name(equipped)["Deployment", name]["spec"]["template"]["spec"]
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] == 10001
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not any("hostPort" in port for port in container["ports"])
    allowed = {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}
    assert all(set(volume) - {"name"} <= allowed for volume in pod["volumes"])


def test_the_pod_cannot_speak_to_kubernetes(spec: KitSpec, pod: Object) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert by_name(spec)["ServiceAccount", pod["serviceAccountName"]]["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False


def test_one_writer(spec: KitSpec) -> None:
    objects = by_name(spec)
    deployment = objects["Deployment", "site"]["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    assert objects["PersistentVolumeClaim", "site-data"]["spec"]["accessModes"] == ["ReadWriteOncePod"]


def test_a_node_can_be_drained(spec: KitSpec) -> None:
    budget = by_name(spec)["PodDisruptionBudget", "site"]["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_the_pod_stays_on_a_node_that_was_lost_and_goes_in_peace(spec: KitSpec, pod: Object) -> None:
    assert all(t["effect"] == "NoExecute" and "tolerationSeconds" not in t for t in pod["tolerations"])
    assert pod["terminationGracePeriodSeconds"] == 45
    assert pod["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 2}}}
    assert ("PriorityClass", pod["priorityClassName"]) in by_name(spec)


def test_nothing_is_without_limit(pod: Object) -> None:
    container = pod["containers"][0]
    for bound in ("requests", "limits"):
        assert set(container["resources"][bound]) == {"cpu", "memory", "ephemeral-storage"}
    assert pod["volumes"][-1] == {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}


def test_telemetry_is_off(pod: Object) -> None:
    assert {"name": "ORT_DISABLE_TELEMETRY", "value": "1"} in pod["containers"][0]["env"]


SELECTORS = {
    ("Deployment", "site"): ("selector", "site"),
    ("PodDisruptionBudget", "site"): ("selector", "site"),
    ("NetworkPolicy", "site"): ("podSelector", "site"),
    ("NetworkPolicy", "site-to-sensors"): ("podSelector", "site"),
    ("NetworkPolicy", "monitoring-to-site"): ("podSelector", "site"),
    ("Deployment", "sensors"): ("selector", "sensors"),
    ("NetworkPolicy", "sensors"): ("podSelector", "sensors"),
}


@pytest.mark.parametrize("named", SELECTORS)
def test_every_selector_finds_its_pod_and_no_other(equipped: KitSpec, named: tuple[str, str]) -> None:
    objects = by_name(equipped)
    where, workload = SELECTORS[named]
    wanted = objects[named]["spec"][where]["matchLabels"].items()
    for name in ("site", "sensors"):
        labels = objects["Deployment", name]["spec"]["template"]["metadata"]["labels"].items()
        assert (wanted <= labels) == (name == workload)


@pytest.mark.parametrize(("service", "workload"), [("site", "site"), ("sensors", "sensors")])
def test_every_service_finds_its_pod_and_port(equipped: KitSpec, service: str, workload: str) -> None:
    objects = by_name(equipped)
    template = objects["Deployment", workload]["spec"]["template"]
    spec = objects["Service", service]["spec"]
    assert spec["selector"].items() <= template["metadata"]["labels"].items()
    ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
    assert [ports[port["targetPort"]] for port in spec["ports"]] == [port["port"] for port in spec["ports"]]


def test_the_image_and_the_site_are_the_kits(equipped: KitSpec) -> None:
    objects = by_name(equipped)
    assert objects["Deployment", "site"]["spec"]["template"]["spec"]["containers"][0]["image"] == equipped.image
    assert all(item["metadata"]["labels"]["app.kubernetes.io/instance"] == equipped.site for item in objects.values())


def test_a_site_that_enrols_may_reach_where_it_does(equipped: KitSpec) -> None:
    rules = by_name(equipped)["NetworkPolicy", "site"]["spec"]["egress"]
    reached = {port["port"] for rule in rules for port in rule["ports"]}
    assert reached == {53, 8883, 8443}
    assert "join.token" in by_name(equipped)["Secret", "site-secrets"]["data"]


def test_gpus_are_asked_for_where_the_node_has_them(equipped: KitSpec, pod: Object) -> None:
    given = by_name(equipped)["Deployment", "site"]["spec"]["template"]["spec"]
    assert given["runtimeClassName"] == "nvidia"
    assert given["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert "runtimeClassName" not in pod
    assert "nvidia.com/gpu" not in pod["containers"][0]["resources"]["limits"]


@pytest.mark.parametrize(
    ("pod", "says"),
    [(PodOptions(gpus=-1), "gpus -1"), (PodOptions(monitoring="Watch this"), "monitoring 'Watch this'")],
)
def test_what_no_pod_can_be_given_is_refused(spec: KitSpec, pod: PodOptions, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        render(dataclasses.replace(spec, pod=pod))


def test_prometheus_is_let_in_and_shows_the_token_of_the_local_api(equipped: KitSpec) -> None:
    objects = by_name(equipped)
    [endpoint] = objects["ServiceMonitor", "site"]["spec"]["endpoints"]
    credentials = endpoint["authorization"]["credentials"]
    assert base64.b64decode(objects["Secret", credentials["name"]]["data"][credentials["key"]]) == b"api secret: dunlin"
    assert endpoint["port"] in {port["name"] for port in objects["Service", "site"]["spec"]["ports"]}
    selected = objects["ServiceMonitor", "site"]["spec"]["selector"]["matchLabels"].items()
    assert [
        name
        for kind, name in objects
        if kind == "Service" and selected <= objects[kind, name]["metadata"]["labels"].items()
    ] == ["site"]
    [rule] = objects["NetworkPolicy", "monitoring-to-site"]["spec"]["ingress"]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "watch"}}}]
    assert (
        rule["ports"][0]["port"]
        == objects["Deployment", "site"]["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"]
    )


def test_the_site_file_in_the_pod_reads_where_the_pod_mounts(spec: KitSpec, pod: Object, tmp_path: Path) -> None:
    objects = by_name(spec)
    path = tmp_path / "site.yaml"
    path.write_text(objects["ConfigMap", "site-config"]["data"]["site.yaml"])
    site = load_site(path)
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in pod["containers"][0]["volumeMounts"]}
    config = site.config

    assert Path(pod["containers"][0]["command"][-1]) == mounts["config"] / "site.yaml"
    assert site.data.is_relative_to(mounts["data"])
    assert all(Path(p).is_relative_to(mounts["data"]) for agent in config.agents for p in (agent.bundle, agent.policy))
    assert config.hub is not None
    assert config.api is not None
    files = [config.hub.password_file, config.api.token_file, *(e.password_file for e in config.endpoints.values())]
    secrets = objects["Secret", "site-secrets"]["data"]
    for file in files:
        assert file is not None
        assert file.parent == mounts["secrets"]
        assert base64.b64decode(secrets[file.name]).decode() == spec.secrets[file.name]
    assert config.api.port == pod["containers"][0]["ports"][0]["containerPort"]


def test_a_changed_password_or_label_replaces_the_pod(spec: KitSpec) -> None:
    def mark(changed: KitSpec) -> str:
        template = by_name(changed)["Deployment", "site"]["spec"]["template"]
        text: str = template["metadata"]["annotations"]["edge-agent-kit/config-sha256"]
        return text

    other_password = dataclasses.replace(spec, hub=dataclasses.replace(spec.hub, password="another"))
    marks = {mark(spec), mark(other_password), mark(dataclasses.replace(spec, labels={"kind": "shop"}))}
    assert len(marks) == 3
    assert mark(spec) == mark(dataclasses.replace(spec))


@settings(max_examples=30)  # each renders a whole site
@given(
    label=st.text(alphabet="yYnNoOtTrRuUeEfFlLsS0123456789._-", min_size=1, max_size=8),
    topic=st.text(max_size=20),
)
def test_no_text_changes_its_meaning_on_the_way_through_two_yaml_files(label: str, topic: str) -> None:
    account = Account("mqtts://mqtt.hub.example", "mqtt.hub.example", 8883, "plant-07", "x")
    spec = KitSpec(
        site="plant-07",
        labels={"k": label},
        hub=account,
        local=account,
        root=b"{}",
        api_token="x",
        release=1,
        agents=(),
        grants=(topic,),
        image="edge-agent-kit:1",
    )
    inner = yaml.safe_load(by_name(spec)["ConfigMap", "site-config"]["data"]["site.yaml"])
    assert inner["labels"] == {"k": label}
    assert inner["grants"] == [topic]


ROLES = sorted(path.name for path in base_folder().iterdir())


def test_the_bases_are_in_the_checkout() -> None:
    assert base_folder().name == "manifests"
    assert ROLES == ["hub", "hub-monitoring", "hub-workers", "site", "site-monitoring", "site-sensors"]
    assert {item["kind"] for item in read_base("site")} >= {"Namespace", "Deployment", "NetworkPolicy"}


@pytest.mark.parametrize("role", ROLES)
def test_no_file_of_a_base_is_left_out(role: str) -> None:
    folder = base_folder() / role
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert sorted([*listed, "kustomization.yaml"]) == sorted(path.name for path in folder.iterdir())


@pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed: kustomize reads the base nowhere"
)
@pytest.mark.parametrize("role", ROLES)
def test_kustomize_reads_the_base_as_we_do(role: str) -> None:
    built = subprocess.run(["kubectl", "kustomize", base_folder() / role], capture_output=True, text=True, check=True)
    theirs = {(item["kind"], item["metadata"]["name"]): item for item in objects_of(built.stdout)}
    assert theirs == {(item["kind"], item["metadata"]["name"]): item for item in read_base(role)}
