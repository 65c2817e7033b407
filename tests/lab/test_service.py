"""Names and translation, as text."""

from __future__ import annotations

from yett_lab import service
from yett_lab.objects import Container, ContainerPort, Pod, Service, ServicePort

CLIENT = Pod("default", "client", (), (Container("c", "busybox"),))


def backend(number: int, port: int = 8080) -> service.Backend:
    container = Container("c", "nginx", ports=(ContainerPort(port, name="http"),))
    pod = Pod("default", f"b{number}", (("app", "b"),), (container,))
    return service.Backend(pod, f"10.0.0.{number}", f"fd00::{number}")


def made(*ports: ServicePort, namespace: str = "default", headless: bool = False) -> Service:
    return Service(namespace, "s", (("app", "b"),), ports or (ServicePort(80, "http"),), headless)


IPS = {"default/s": ("10.96.0.10", "fd00:10:96::a"), "shop/s": ("10.96.0.11", "fd00:10:96::b")}


def ready(*backends: service.Backend) -> dict[str, service.Backend]:
    return {b.pod.key: b for b in backends}


def test_one_backend_is_translated_plainly_and_several_at_random() -> None:
    one = service.translation([made()], IPS, ready(backend(1)))
    assert "ip daddr 10.96.0.10 tcp dport 80 dnat ip to 10.0.0.1:8080" in one
    assert "ip6 daddr fd00:10:96::a tcp dport 80 dnat ip6 to [fd00::1]:8080" in one
    two = service.translation([made()], IPS, ready(backend(1), backend(2, 9090)))
    assert "numgen random mod 2 map { 0 : 10.0.0.1 . 8080, 1 : 10.0.0.2 . 9090 }" in two


def test_what_no_backend_serves_is_refused() -> None:
    text = service.translation([made(ServicePort(80, "nosuch"))], IPS, ready(backend(1)))
    assert "dnat" not in text
    assert "ip daddr 10.96.0.10 reject" in text


def test_names_have_the_forms_of_cluster_dns() -> None:
    text = service.hosts(CLIENT, ("10.0.0.9", "fd00::9"), [made()], IPS, {})
    names = "s.default.svc.cluster.local s.default.svc s.default s"
    assert f"10.96.0.10 {names}\n" in text
    assert f"fd00:10:96::a {names}\n" in text
    assert "10.0.0.9 client\n" in text


def test_a_bare_name_resolves_in_its_own_namespace_only() -> None:
    text = service.hosts(CLIENT, ("10.0.0.9", "fd00::9"), [made(namespace="shop")], IPS, {})
    assert "10.96.0.11 s.shop.svc.cluster.local s.shop.svc s.shop\n" in text


def test_a_headless_service_is_its_pods() -> None:
    text = service.hosts(
        CLIENT, ("10.0.0.9", "fd00::9"), [made(headless=True)], {}, ready(backend(1), backend(2))
    )
    assert [line.split()[0] for line in text.splitlines() if "s.default.svc " in line] == [
        *("10.0.0.1", "fd00::1"),
        *("10.0.0.2", "fd00::2"),
    ]
