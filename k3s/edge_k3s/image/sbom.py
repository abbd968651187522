"""What is in an image, for those who must know: a bill of materials as CycloneDX 1.6 in JSON."""

import uuid
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

from packaging.metadata import Metadata

from edge_k3s.image.dpkg import Package
from edge_k3s.image.wheels import KIT, Wheel, metadata_of
from edge_models.digests import digest_of
from edge_models.layout import dump_json

PATH = "usr/share/edge-agent/sbom.cdx.json"
"""In the image."""


def bill_of_materials(wheels: Sequence[Wheel], packages: Iterable[Package], distribution: str, name: str) -> bytes:
    """The document. The same content gives the same bytes: its serial number follows from what it lists, and it
    bears no time."""
    kit = next((wheel for wheel in wheels if wheel.name == KIT), None)
    listed = [_python(wheel) for wheel in wheels if wheel is not kit]
    listed += [_debian(package, distribution) for package in packages]
    listed.sort(key=lambda each: str(each["bom-ref"]))
    root = _python(kit) | {"type": "application"} if kit else {"type": "application", "name": name, "bom-ref": name}
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": root},
        "components": listed,
        "dependencies": [{"ref": root["bom-ref"], "dependsOn": [each["bom-ref"] for each in listed]}],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_OID, digest_of(dump_json(document)))
    return dump_json(document | {"serialNumber": f"urn:uuid:{serial}"})


def _python(wheel: Wheel) -> dict[str, Any]:
    purl = f"pkg:pypi/{wheel.name}@{wheel.version}"
    digest = digest_of(wheel.path.read_bytes()).removeprefix("sha256:")
    about = metadata_of(wheel)
    return {
        "type": "library",
        "bom-ref": purl,
        "purl": purl,
        "name": wheel.name,
        "version": str(wheel.version),
        "hashes": [{"alg": "SHA-256", "content": digest}],
    } | ({"licenses": licenses} if (licenses := _licenses(about)) else {})


def _licenses(about: Metadata) -> list[dict[str, Any]]:
    if about.license_expression:
        return [{"expression": str(about.license_expression)}]
    prefix = "License :: "
    named = [each.rpartition(" :: ")[2] for each in about.classifiers or () if each.startswith(prefix)]
    # Some put the whole text where its name should be.
    if not named and about.license and len(about.license) < 100:
        named = [about.license.strip()]
    return [{"license": {"name": each}} for each in sorted(set(named)) if each]


def _debian(package: Package, distribution: str) -> dict[str, Any]:
    purl = f"pkg:deb/debian/{quote(package.name)}@{quote(package.version, safe=':')}"
    purl += f"?arch={package.architecture}&distro={quote(distribution)}"
    return {
        "type": "library",
        "bom-ref": purl,
        "purl": purl,
        "name": package.name,
        "version": package.version,
        "properties": [{"name": "debian:source", "value": package.source}],
    }
