"""A small cluster and random policies over it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from support.policy_oracle import End
from yett_policy.cluster import Cluster, NamedPort, Namespace, Node, Pod
from yett_policy.document import Engine, Ruleset
from yett_policy.http.rule import RulesetSpec

NODE = "n1"
NAMESPACES = {"default": {}, "prod": {"team": "red"}, "dev": {"team": "blue"}}


def fake_ruleset(spec: RulesetSpec) -> Ruleset:
    """A ruleset without tables."""
    return Ruleset(spec.digest, spec, Engine.KERNEL, "not compiled")


def _pod(namespace: str, address: str, ports: dict[str, int], **labels: str) -> End:
    named = tuple((name, "TCP", number) for name, number in sorted(ports.items()))
    return End("pod", address, namespace, tuple(sorted(labels.items())), named)


PODS = [
    _pod("default", "10.0.1.1", {"web": 80}, app="x"),
    _pod("default", "10.0.1.2", {"web": 8080}, app="x", tier="t"),
    _pod("default", "10.0.1.3", {}, app="y"),
    _pod("prod", "10.0.2.1", {"web": 443, "alt": 80}, app="x"),
    _pod("prod", "10.0.2.2", {}, app="y", tier="t"),
    _pod("dev", "10.0.2.3", {}, app="z"),
]
ENDS = [
    *PODS,
    End("host", "10.0.0.1"),
    End("remote-node", "10.0.0.2"),
    End("world", "192.0.2.1"),
    End("world", "192.0.2.200"),
    End("world", "203.0.113.9"),
    End("world", "10.0.2.77"),
]


def cluster(pods: list[End] | None = None) -> Cluster:
    """The facts; pods are named after their address."""
    return Cluster(
        pods=tuple(
            Pod(
                end.namespace,
                "p" + end.address.replace(".", "-"),
                dict(end.labels),
                (end.address,),
                tuple(NamedPort(name, number, protocol) for name, protocol, number in end.ports),
            )
            for end in (PODS if pods is None else pods)
        ),
        namespaces=tuple(Namespace(name, labels) for name, labels in NAMESPACES.items()),
        nodes=(Node(NODE, ("10.0.0.1",)), Node("n2", ("10.0.0.2",))),
    )


def _maybe(fields: dict[str, Any], **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(fields, optional=optional)


_selectors = st.one_of(
    st.just({}),
    st.sampled_from(
        [
            {"matchLabels": {"app": "x"}},
            {"matchLabels": {"app": "y"}},
            {"matchLabels": {"tier": "t"}},
            {"matchExpressions": [{"key": "app", "operator": "In", "values": ["x", "z"]}]},
            {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x"]}]},
            {"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]},
            {"matchExpressions": [{"key": "tier", "operator": "Exists"}]},
        ]
    ),
)
_peer_selectors = st.one_of(
    _selectors,
    st.sampled_from(
        [
            {"matchLabels": {"io.kubernetes.pod.namespace": "prod"}},
            {"matchLabels": {"io.kubernetes.pod.namespace": "prod", "app": "x"}},
            {"matchLabels": {"io.cilium.k8s.namespace.labels.team": "red"}},
            {
                "matchExpressions": [
                    {"key": "io.kubernetes.pod.namespace", "operator": "NotIn", "values": ["prod"]}
                ]
            },
        ]
    ),
)
_cidrs = st.sampled_from(
    ["10.0.0.0/8", "10.0.2.0/24", "192.0.2.0/24", "192.0.2.128/25", "0.0.0.0/0", "203.0.113.9/32", "::/0"]
)
_cidr_sets = st.sampled_from(
    [
        {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]},
        {"cidr": "0.0.0.0/0", "except": ["192.0.2.0/24", "10.0.2.0/24"]},
        {"cidr": "10.0.0.0/8", "except": ["10.0.1.0/24"]},
        {"cidr": "192.0.2.0/24"},
    ]
)
_entities = st.sampled_from(["all", "world", "cluster", "host", "remote-node", "none", "health"])
_http = _maybe(
    {},
    method=st.sampled_from(["GET", "POST", "GET|POST", ""]),
    path=st.sampled_from(["/a", "/a.*", "/.*", "/b\\?x=1"]),
    host=st.sampled_from(["a.test", ".*"]),
    headers=st.sampled_from([["X-A"], ["X-A: 1"], ["X-A: "]]),
)
_l7_http = st.one_of(
    _http,
    _maybe(
        {},
        method=st.sampled_from(["GET", "POST"]),
        pathPrefix=st.sampled_from(["/a", "/", "/a/"]),
        headerMatches=st.sampled_from(
            [
                [{"name": "X-A", "operator": "Prefix", "value": "1"}],
                [{"name": "x-a", "operator": "Absent"}],
                [{"name": "x-a", "value": "1"}],
                [{"name": "x-a"}],
            ]
        ),
    ),
    _maybe({}, pathExact=st.sampled_from(["/a", "/b"])),
)
_tolerant_http = st.one_of(
    _l7_http,
    st.just({"path": "/.*", "allowAmbiguous": ["EmptySegment"]}),
    st.just({"allowAmbiguous": ["DotSegment", "EmptySegment"]}),
)
_tcp_ports = st.sampled_from(
    [
        {"port": "80", "protocol": "TCP"},
        {"port": "79", "endPort": 81, "protocol": "TCP"},
        {"port": "web", "protocol": "TCP"},
        {"port": "1", "endPort": 65535, "protocol": "TCP"},
    ]
)
_ports = st.one_of(
    _tcp_ports,
    st.sampled_from(
        [
            {"port": "80"},
            {"port": "80", "protocol": "UDP"},
            {"port": "0", "protocol": "TCP"},
            {"port": "0"},
            {"port": "web"},
            {"port": "8080", "endPort": 8081, "protocol": "ANY"},
            {"port": "443", "protocol": "SCTP"},
        ]
    ),
)


def _to_ports(http: st.SearchStrategy[dict[str, Any]] | None) -> st.SearchStrategy[list[dict[str, Any]]]:
    plain = st.fixed_dictionaries({"ports": st.lists(_ports, max_size=3)})
    if http is None:
        return st.lists(plain, max_size=2)
    judged = st.fixed_dictionaries(
        {
            "ports": st.lists(_tcp_ports, min_size=1, max_size=2),
            "rules": st.fixed_dictionaries({"http": st.lists(http, max_size=3)}),
        }
    )
    return st.lists(st.one_of(plain, judged, judged), max_size=2)


def _items(side: str, http: st.SearchStrategy[dict[str, Any]] | None) -> st.SearchStrategy[dict[str, Any]]:
    peers = st.one_of(
        st.just({}),
        st.fixed_dictionaries({f"{side}Endpoints": st.lists(_peer_selectors, max_size=2)}),
        st.fixed_dictionaries({f"{side}Entities": st.lists(_entities, max_size=2)}),
        st.fixed_dictionaries({f"{side}CIDR": st.lists(_cidrs, max_size=2)}),
        st.fixed_dictionaries({f"{side}CIDRSet": st.lists(_cidr_sets, max_size=2)}),
    )
    ports = st.one_of(
        st.just({}),
        st.fixed_dictionaries({"toPorts": _to_ports(http)}),
        st.fixed_dictionaries({"toPorts": _to_ports(http)}),
        st.just({"icmps": [{"fields": [{"type": 8}]}]}),
        st.just({"icmps": [{"fields": []}]}),
    )
    return st.builds(lambda a, b: {**a, **b}, peers, ports)


def _nonempty(spec: dict[str, Any]) -> bool:
    return any(spec.get(name) for name in ("ingress", "egress", "ingressDeny", "egressDeny"))


def _spec(
    http: st.SearchStrategy[dict[str, Any]],
    deny_http: st.SearchStrategy[dict[str, Any]] | None,
    **more: Any,
) -> st.SearchStrategy[dict[str, Any]]:
    return _maybe(
        {"endpointSelector": _selectors},
        ingress=st.lists(_items("from", http), max_size=2),
        egress=st.lists(_items("to", http), max_size=2),
        ingressDeny=st.lists(_items("from", deny_http), max_size=1),
        egressDeny=st.lists(_items("to", deny_http), max_size=1),
        enableDefaultDeny=_maybe({}, ingress=st.booleans(), egress=st.booleans()),
        **more,
    ).filter(_nonempty)


def _object(version: str, kind: str, spec: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    metadata = (
        st.just({}) if "Cluster" in kind else _maybe({}, namespace=st.sampled_from(["default", "prod"]))
    )
    return st.fixed_dictionaries(
        {"apiVersion": st.just(version), "kind": st.just(kind), "metadata": metadata, "spec": spec}
    )


_l7_spec = _spec(_tolerant_http, _l7_http, audit=st.booleans(), denyResponse=st.just("Forbidden"))
_cilium_spec = _spec(_http, None)
_k8s_selectors = _selectors
_k8s_peers = st.one_of(
    st.fixed_dictionaries({"podSelector": _k8s_selectors}),
    st.fixed_dictionaries(
        {"namespaceSelector": st.sampled_from([{}, {"matchLabels": {"team": "red"}}])},
        optional={"podSelector": _k8s_selectors},
    ),
    st.fixed_dictionaries({"ipBlock": _cidr_sets}),
)
_k8s_ports = st.sampled_from(
    [
        {},
        {"port": 80},
        {"port": 79, "endPort": 81},
        {"port": "web"},
        {"protocol": "UDP"},
        {"protocol": "SCTP", "port": 443},
    ]
)
_k8s_spec = _maybe(
    {"podSelector": _k8s_selectors},
    policyTypes=st.sampled_from([["Ingress"], ["Egress"], ["Ingress", "Egress"]]),
    ingress=st.lists(
        _maybe({}, **{"from": st.lists(_k8s_peers, max_size=2), "ports": st.lists(_k8s_ports, max_size=2)}),
        max_size=2,
    ),
    egress=st.lists(
        _maybe({}, to=st.lists(_k8s_peers, max_size=2), ports=st.lists(_k8s_ports, max_size=2)), max_size=2
    ),
)

policy_objects = st.one_of(
    _object("yett.dev/v1alpha1", "L7Policy", _l7_spec),
    _object("yett.dev/v1alpha1", "ClusterL7Policy", _l7_spec),
    _object("cilium.io/v2", "CiliumNetworkPolicy", _cilium_spec),
    _object("cilium.io/v2", "CiliumClusterwideNetworkPolicy", _cilium_spec),
    _object("networking.k8s.io/v1", "NetworkPolicy", _k8s_spec),
)

_few_peers = st.sampled_from(
    [
        {},
        {},
        {"Endpoints": [{}]},
        {"Endpoints": [{"matchLabels": {"app": "x"}}]},
        {"Entities": ["host"]},
        {"Entities": ["all"]},
    ]
)
_at_80 = st.one_of(
    st.just({"ports": [{"port": "80", "protocol": "TCP"}]}),
    st.fixed_dictionaries(
        {
            "ports": st.just([{"port": "80", "protocol": "TCP"}]),
            "rules": st.fixed_dictionaries({"http": st.lists(_l7_http, min_size=1, max_size=2)}),
        }
    ),
)


def _few_items(side: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(
        lambda peers, port_rule: {
            **{f"{side}{kind}": member for kind, member in peers.items()},
            **({"toPorts": [port_rule]} if port_rule else {}),
        },
        _few_peers,
        st.one_of(_at_80, _at_80, _at_80, st.none()),
    )


crowded_objects = _object(
    "yett.dev/v1alpha1",
    "ClusterL7Policy",
    st.builds(
        lambda direction, allows, denies, harsh, audit: {
            "endpointSelector": {},
            "audit": audit,
            "enableDefaultDeny": {direction: harsh},
            direction: allows,
            f"{direction}Deny": denies,
        },
        st.sampled_from(["ingress"]),
        st.lists(_few_items("from"), min_size=1, max_size=2),
        st.lists(_few_items("from"), max_size=1),
        st.booleans(),
        st.booleans(),
    ),
)
"""Policies that all speak of port 80 of all pods, so that their rules meet."""
