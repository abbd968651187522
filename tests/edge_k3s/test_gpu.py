"""A pod that is given GPUs is told to use them; nothing else is."""

import dataclasses
from pathlib import Path

import yaml

from edge_agent.config import load_site
from edge_agent.inference.providers import choose
from edge_k3s.kit import seal, warnings_of
from edge_k3s.rendering import SITE_FILE, render
from edge_k3s.spec import KitSpec, PodOptions
from edge_k3s.tree import File

WITH_CUDA = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
"""What onnxruntime-gpu is built with."""


def site_file_of(spec: KitSpec, folder: Path) -> Path:
    """The site file of its pod."""
    documents = yaml.safe_load_all(render(spec)[SITE_FILE])
    [text] = [each["data"]["site.yaml"] for each in documents if each["kind"] == "ConfigMap"]
    path = folder / "site.yaml"
    path.write_text(text)
    return path


def test_the_pods_site_prefers_cuda_and_can_do_with_the_cpu(spec: KitSpec, tmp_path: Path) -> None:
    given = dataclasses.replace(spec, pod=PodOptions(gpus=1))
    assert load_site(site_file_of(spec, tmp_path)).config.inference.providers == ["cpu"]
    providers = load_site(site_file_of(given, tmp_path)).config.inference.providers
    assert choose(providers, WITH_CUDA) == ("CUDAExecutionProvider", "CPUExecutionProvider")


def test_the_kits_folder_is_for_any_machine(spec: KitSpec) -> None:
    given = dataclasses.replace(spec, pod=PodOptions(gpus=1))
    assert seal(given, None)["site.yaml"] == seal(spec, None)["site.yaml"]
    assert isinstance(seal(spec, None)["site.yaml"], File)


def test_it_is_said_that_the_image_has_to_know_cuda(spec: KitSpec) -> None:
    given = dataclasses.replace(spec, pod=PodOptions(gpus=1))
    [more] = set(warnings_of(given)) - set(warnings_of(spec))
    assert more.startswith(f"{spec.image} needs an onnxruntime with CUDA")
