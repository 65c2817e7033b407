"""From manifests to objects; what a lab cannot do is said, not ignored."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Iterable, Mapping
from typing import Any

from yett_lab import image
from yett_lab.field import Field
from yett_lab.manifest import Manifest
from yett_lab.objects import Container, ContainerPort, Namespace, Objects, Pod, Service, ServicePort

REPLICAS_MAX = 100
_POD_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"


def objects(manifests: Iterable[Manifest], images: Mapping[str, str] | None) -> tuple[Objects, list[str]]:
    """The objects that manifests describe, and warnings about what is left out.

    `images` are the user's stand-ins; a container that has none is an error.  None: nothing
    is to run, any image will do.
    """
    pods: dict[str, Pod] = {}
    services: dict[str, Service] = {}
    namespaces: dict[str, Namespace] = {}
    warnings: list[str] = []
    for manifest in manifests:
        if manifest.is_policy:
            continue
        match (manifest.group, manifest.kind):
            case ("", "Pod"):
                found = _pods(manifest, images, warnings)
            case ("apps", "Deployment"):
                found = _deployment(manifest, images, warnings)
            case ("", "Service"):
                service = _service(manifest, warnings)
                if service is not None:
                    services[service.key] = service
                continue
            case ("", "Namespace"):
                namespace = _namespace(manifest)
                namespaces[namespace.name] = namespace
                continue
            case _:
                warnings.append(
                    f"{manifest.place()}: {manifest.label} left out: a lab does not run {manifest.kind}"
                )
                continue
        pods.update((pod.key, pod) for pod in found)
    for name in {pod.namespace for pod in pods.values()} | {s.namespace for s in services.values()}:
        namespaces.setdefault(name, Namespace(name))
    return (
        Objects(
            tuple(pods[key] for key in sorted(pods)),
            tuple(services[key] for key in sorted(services)),
            tuple(namespaces[key] for key in sorted(namespaces)),
        ),
        warnings,
    )


def _identity(manifest: Manifest, *, dots: bool = True) -> tuple[str, str]:
    metadata = Field(manifest, manifest.body)["metadata"]
    namespace = metadata["namespace"]
    return (
        namespace.object_name(dots=False) if namespace.value else "default",
        metadata["name"].object_name(dots=dots),
    )


def _pods(manifest: Manifest, images: Mapping[str, str] | None, warnings: list[str]) -> list[Pod]:
    namespace, name = _identity(manifest)
    pod = _pod(Field(manifest, manifest.body), namespace, name, images, warnings)
    return [] if pod is None else [pod]


def _deployment(manifest: Manifest, images: Mapping[str, str] | None, warnings: list[str]) -> list[Pod]:
    namespace, name = _identity(manifest)
    spec = Field(manifest, manifest.body)["spec"]
    template = spec["template"]
    if not template:
        raise template.error("expected a pod template with metadata.labels and spec")
    selector = dict(spec["selector"]["matchLabels"].mapping())
    labels = dict(template["metadata"]["labels"].mapping())
    if not selector.items() <= labels.items():
        raise spec["selector"]["matchLabels"].error(
            "expected labels that spec.template.metadata.labels has too"
        )
    digest = hashlib.sha256(json.dumps(template.value, sort_keys=True, default=str).encode()).hexdigest()
    made = []
    for index in range(spec["replicas"].integer(0, REPLICAS_MAX, 1)):
        replica = f"{name}-{digest[:9]}-{_suffix(digest, index)}"
        pod = _pod(template, namespace, replica, images, warnings if index == 0 else [])
        if pod is not None:
            made.append(pod)
    return made


def _suffix(digest: str, index: int) -> str:
    """Five characters as Kubernetes makes them, the same for the same template and index."""
    number = int(hashlib.sha256(f"{digest}/{index}".encode()).hexdigest(), 16)
    letters = []
    for _ in range(5):
        number, rest = divmod(number, len(_POD_SUFFIX))
        letters.append(_POD_SUFFIX[rest])
    return "".join(letters)


def _pod(
    body: Field, namespace: str, name: str, images: Mapping[str, str] | None, warnings: list[str]
) -> Pod | None:
    spec = body["spec"]
    if spec["hostNetwork"].value:
        warnings.append(
            f"{spec.manifest.place(spec.path)}: pod/{name} left out: a lab does not run hostNetwork pods"
        )
        return None
    warnings += [
        f"{spec.manifest.place(spec[field].path)}: not run in a lab"
        for field in ("initContainers", "ephemeralContainers")
        if spec[field].value
    ]
    containers = tuple(_container(item, images) for item in spec["containers"])
    if not containers:
        raise spec["containers"].error("expected at least one container with name and image")
    return Pod(
        namespace,
        name,
        body["metadata"]["labels"].mapping(),
        containers,
        spec["nodeName"].string(""),
        spec["serviceAccountName"].string("default"),
    )


def _container(field: Field, images: Mapping[str, str] | None) -> Container:
    env = []
    for item in field["env"]:
        name = item["name"].string()
        if not name or "=" in name:
            raise item["name"].error("expected a variable name without `=`")
        if item["valueFrom"]:
            raise item["valueFrom"].error("a lab has no source for it; write `value`")
        env.append((name, item["value"].string("")))
    container = Container(
        field["name"].object_name(dots=False),
        field["image"].string(),
        field["command"].strings(),
        field["args"].strings(),
        tuple(env),
        tuple(_container_port(item) for item in field["ports"]),
        field["workingDir"].string(""),
    )
    if images is not None and not image.is_known(container, images):
        raise field["image"].refusal(
            f"no stand-in is known for {container.image!r}; say what runs in its place: "
            f"--image {image.normalise(container.image)}=COMMAND"
        )
    return container


def _container_port(field: Field) -> ContainerPort:
    return ContainerPort(
        field["containerPort"].integer(1, 65535),
        field["protocol"].choice("TCP", "UDP", "SCTP"),
        field["name"].string(""),
    )


def _service(manifest: Manifest, warnings: list[str]) -> Service | None:
    namespace, name = _identity(manifest, dots=False)
    spec = Field(manifest, manifest.body)["spec"]
    kind = spec["type"].choice("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
    if kind == "ExternalName":
        warnings.append(
            f"{manifest.place('spec.type')}: service/{name} left out: a lab has no DNS for ExternalName"
        )
        return None
    if kind != "ClusterIP":
        warnings.append(f"{manifest.place('spec.type')}: {kind}: a lab serves the cluster IP only")
    address = spec["clusterIP"].string("")
    headless = address == "None"
    if headless:
        address = ""
    if address:
        address = _cluster_ip(spec["clusterIP"], address)
    return Service(
        namespace,
        name,
        spec["selector"].mapping(),
        tuple(_service_port(item) for item in spec["ports"]),
        headless,
        address,
    )


def _cluster_ip(field: Field, text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise field.error("expected an IP address, `None` or nothing") from None
    if address not in ipaddress.ip_network("10.96.0.0/16"):
        raise field.error(
            "expected an address in 10.96.0.0/16, which Services of a lab have; or leave it out"
        )
    return str(address)


def _service_port(field: Field) -> ServicePort:
    port = field["port"].integer(1, 65535)
    target: Any = field["targetPort"].value
    if target is None:
        target = port
    elif isinstance(target, int):
        target = field["targetPort"].integer(1, 65535)
    else:
        target = field["targetPort"].string()
    return ServicePort(
        port,
        target,
        field["protocol"].choice("TCP", "UDP", "SCTP"),
        field["name"].string(""),
        field["appProtocol"].string(""),
    )


def _namespace(manifest: Manifest) -> Namespace:
    metadata = Field(manifest, manifest.body)["metadata"]
    return Namespace(
        metadata["name"].object_name(dots=False),
        metadata["labels"].mapping(),
        metadata["annotations"].mapping(),
    )
