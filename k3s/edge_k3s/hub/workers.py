"""Ingest workers as pods of their own, whose number follows what there is to do."""

from edge_k3s.bases import Object, by_name, named, read_base
from edge_k3s.hub.network import egress_rules
from edge_k3s.hub.pod import environment, leave_out, servers_options, shows_authorities
from edge_k3s.hub.secrets import secret_name
from edge_k3s.hub.spec import HubSpec, WorkerPods


def worker_objects(spec: HubSpec, pods: WorkerPods) -> list[Object]:
    """The objects of these pods; the StatefulSet is the last."""
    objects = by_name(read_base("hub-workers"))
    objects["NetworkPolicy", "workers"]["spec"]["egress"] += egress_rules(spec)
    scaling = objects["HorizontalPodAutoscaler", "workers"]["spec"]
    scaling["minReplicas"], scaling["maxReplicas"] = pods.least, pods.most
    scaling["metrics"][0]["resource"]["target"]["averageUtilization"] = pods.cpu_percent
    _lay_out(spec, objects["StatefulSet", "workers"]["spec"])
    return list(objects.values())


def _lay_out(spec: HubSpec, workers: Object) -> None:
    workers["ordinals"]["start"] = spec.workers + 1
    pod = workers["template"]["spec"]
    pod["initContainers"][0]["image"] = spec.image
    worker = named(pod["containers"], "worker")
    worker["image"] = spec.image
    worker["command"] += servers_options(spec)
    worker["env"] += environment(spec)
    named(pod["volumes"], "secrets")["secret"]["secretName"] = secret_name(spec)
    if not shows_authorities(spec):
        leave_out(pod, "config")
