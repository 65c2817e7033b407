"""The sidecar behind a Service's address that the node translates, as kube-proxy does: the client's
egress is judged by who is behind it, and Envoy's own connection is translated on its way out.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest

from support.sidecarlab import SERVER, Lab, policy
from yett_lab import access, address, control, parse
from yett_lab.compile import compile_lab
from yett_lab.paths import NETNS
from yett_policy.service import Backends, Frontend

pytestmark = [pytest.mark.net, pytest.mark.bpf]

SERVICE = {4: "10.200.0.10", 6: "fd00:200::a"}
"""No Service of the lab: nothing translates it inside the pod."""
PORTS = {80: 80, 8000: 8082}


@pytest.fixture(scope="module", autouse=True)
def node(sidecar: Lab) -> None:
    """The client's node translates; the client's egress is the sidecar's."""
    sidecar.apply(policy(direction="egress"), policy(port=8082, direction="egress"))
    state = access.load(sidecar.paths)
    place = NETNS / sidecar.paths.node_netns(state.pods["default/client"].node)
    for family, table in ((4, "ip"), (6, "ip6")):
        server = sidecar.address(family=family)
        host = f"[{server}]" if family == 6 else server
        rules = "\n".join(
            f"{table} daddr {SERVICE[family]} tcp dport {front} dnat to {host}:{back};"
            for front, back in PORTS.items()
        )
        script = f"""
table {table} kube-proxy {{
  chain services {{ {rules} }}
  chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
  chain nat-output {{ type nat hook output priority -100; jump services; }}
}}"""
        enter = ["nsenter", f"--net={place}"]
        subprocess.run([*enter, "nft", "-f", "-"], input=script, text=True, check=True, timeout=20)
        # Before it is translated, what a node itself sends to a service follows its default route.
        route = ["ip", f"-{family}", "route", "add", "default", "via", gateway(family)]
        subprocess.run([*enter, *route], check=True, timeout=20)
    tell(sidecar, known(sidecar))


def gateway(family: int) -> str:
    """The other node, which will do."""
    return address.node4(1) if family == 4 else address.node6(1)


def known(sidecar: Lab) -> dict[Frontend, Backends]:
    number = {pod[1]: pod[2] for pod in compiled(sidecar).pods}[SERVER]
    return {
        Frontend(service, 6, front): ((number, back),)
        for service in SERVICE.values()
        for front, back in PORTS.items()
    }


def compiled(sidecar: Lab):  # type: ignore[no-untyped-def]
    state = access.load(sidecar.paths)
    return compile_lab(state, parse.objects(state.manifests, None)[0], state.manifests)


def tell(sidecar: Lab, services: dict[Frontend, Backends]) -> None:
    """What an operator would say of Services."""
    state = access.load(sidecar.paths)
    control.push(sidecar.paths, state, replace(compiled(sidecar), services=services))


def host(family: int) -> str:
    return f"[{SERVICE[family]}]" if family == 6 else SERVICE[family]


@pytest.mark.parametrize("family", [4, 6])
def test_requests_through_the_service_are_judged_by_the_rules_on_its_pods(sidecar: Lab, family: int) -> None:
    assert sidecar.curl(f"http://{host(family)}/public") == "200"
    assert sidecar.curl(f"http://{host(family)}/private") == "000"
    assert sidecar.curl("--http2-prior-knowledge", f"http://{host(family)}:8000/public") == "200"
    assert sidecar.curl("--http2-prior-knowledge", f"http://{host(family)}:8000/private") == "000"


@pytest.mark.parametrize("family", [4, 6])
def test_the_server_sees_the_client_and_the_client_the_service(sidecar: Lab, family: int) -> None:
    url = f"http://{host(family)}:8000/public"
    assert (
        sidecar.run("curl", "-gs", "--http2-prior-knowledge", url) == sidecar.address("client", family) + "\n"
    )


def test_many_connections_one_after_the_other_find_their_way(sidecar: Lab) -> None:
    urls = [f"http://{SERVICE[4]}/public?{i}" for i in range(3)]
    assert [sidecar.curl(f"http://{SERVICE[4]}/public") for _ in range(50)] == ["200"] * 50
    assert {sidecar.curl(url) for url in urls} == {"000"}  # the rule is for the whole target


def test_pods_are_reached_by_their_own_address_at_the_same_time(sidecar: Lab) -> None:
    assert sidecar.curl(f"http://{sidecar.address()}/public") == "200"
    assert sidecar.curl(f"http://{SERVICE[4]}/public") == "200"


def test_a_service_that_is_not_known_is_not_reached(sidecar: Lab) -> None:
    tell(sidecar, {})
    try:
        assert sidecar.curl(f"http://{SERVICE[4]}/public") == "000"
    finally:
        tell(sidecar, known(sidecar))
    assert sidecar.curl(f"http://{SERVICE[4]}/public") == "200"
