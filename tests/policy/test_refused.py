"""What is refused, and with which sentence."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from support.examples import examples
from yett_policy.errors import PolicyError, Severity
from yett_policy.lint import lint
from yett_policy.source.parse import is_policy, parse_policy, source_of

CNP = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p}\n"
L7P = "apiVersion: yett.dev/v1alpha1\nkind: L7Policy\nmetadata: {name: p}\n"
NP = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n"


def ingress(item: str) -> str:
    return f"spec: {{endpointSelector: {{}}, ingress: [{item}]}}"


def egress(item: str) -> str:
    return f"spec: {{endpointSelector: {{}}, egress: [{item}]}}"


def http(rule: str) -> str:
    return ingress(f'{{toPorts: [{{ports: [{{port: "80", protocol: TCP}}], rules: {{http: [{rule}]}}}}]}}')


def to_ports(port_rule: str) -> str:
    return ingress(f"{{toPorts: [{port_rule}]}}")


RULE = "spec.ingress[0].toPorts[0].rules.http[0]"
PORT = "spec.ingress[0].toPorts[0].ports[0]"

UNSUPPORTED = [
    (
        egress("{toFQDNs: [{matchName: a.test}]}"),
        "spec.egress[0].toFQDNs: not supported yet (DNS names); remove it",
    ),
    (egress("{toFQDNs: []}"), "spec.egress[0].toFQDNs: not supported yet"),
    (egress("{toServices: []}"), "spec.egress[0].toServices: not supported yet"),
    (egress("{toGroups: []}"), "spec.egress[0].toGroups: not supported"),
    (ingress("{fromGroups: []}"), "spec.ingress[0].fromGroups: not supported"),
    (ingress("{fromNodes: [{}]}"), "spec.ingress[0].fromNodes: not supported yet"),
    (egress("{toNodes: [{}]}"), "spec.egress[0].toNodes: not supported yet"),
    (ingress("{fromRequires: [{}]}"), "spec.ingress[0].fromRequires: was removed from Cilium"),
    ("spec: {nodeSelector: {}, ingress: [{}]}", "spec.nodeSelector: not supported yet (host policies)"),
    (
        to_ports('{ports: [{port: "443"}], serverNames: [a.test]}'),
        "spec.ingress[0].toPorts[0].serverNames: not supported",
    ),
    (to_ports("{terminatingTLS: {}}"), "spec.ingress[0].toPorts[0].terminatingTLS: not supported yet (TLS"),
    (to_ports("{originatingTLS: {}}"), "spec.ingress[0].toPorts[0].originatingTLS: not supported yet (TLS"),
    (to_ports("{listener: {}}"), "spec.ingress[0].toPorts[0].listener: custom Envoy listeners"),
    (
        to_ports("{rules: {dns: [{}]}}"),
        "spec.ingress[0].toPorts[0].rules.dns: not supported yet (DNS rules); remove it",
    ),
    (to_ports("{rules: {kafka: [{}]}}"), "spec.ingress[0].toPorts[0].rules.kafka: not supported"),
    (to_ports("{rules: {l7proto: x}}"), "spec.ingress[0].toPorts[0].rules.l7proto: not supported"),
    (
        ingress("{authentication: {mode: required}}"),
        "spec.ingress[0].authentication.mode: required is not supported yet",
    ),
    (
        ingress("{fromCIDRSet: [{cidrGroupRef: g}]}"),
        "spec.ingress[0].fromCIDRSet[0].cidrGroupRef: not supported yet",
    ),
    (
        ingress("{fromCIDRSet: [{cidrGroupSelector: {}, except: [10.0.0.0/8]}]}"),
        "spec.ingress[0].fromCIDRSet[0].cidrGroupSelector: not supported yet",
    ),
    (
        http("{headerMatches: [{name: a, secret: {name: s}}]}"),
        f"{RULE}.headerMatches[0].secret: a request cannot be compared with a Secret",
    ),
    (
        http("{headerMatches: [{name: a, mismatch: ADD}]}"),
        f"{RULE}.headerMatches[0].value: mismatch ADD needs a value or a secret",
    ),
    (
        http("{headerMatches: [{name: a, mismatch: DELETE}]}"),
        f"{RULE}.headerMatches[0].value: mismatch DELETE needs a value or a secret",
    ),
    (
        http("{headerMatches: [{name: a, mismatch: REPLACE}]}"),
        f"{RULE}.headerMatches[0].value: mismatch REPLACE needs a value or a secret",
    ),
    (
        http('{headerMatches: [{name: a, mismatch: REPLACE, value: ""}]}'),
        f"{RULE}.headerMatches[0].value: mismatch REPLACE needs",
    ),
    (
        http("{headerMatches: [{name: Host, mismatch: REPLACE, value: b}]}"),
        f"{RULE}.headerMatches[0].name: Host says how the request is sent",
    ),
    (
        http("{headerMatches: [{name: content-length, mismatch: REPLACE, value: b}]}"),
        f"{RULE}.headerMatches[0].name: content-length says how the request is sent",
    ),
    (
        http("{headerMatches: [{name: Transfer-Encoding, mismatch: REPLACE, value: b}]}"),
        f"{RULE}.headerMatches[0].name: Transfer-Encoding says how the request is sent",
    ),
    (
        http("{headerMatches: [{name: connection, mismatch: REPLACE, value: b}]}"),
        f"{RULE}.headerMatches[0].name: connection says how the request is sent",
    ),
    (
        http("{headerMatches: [{name: TE, mismatch: REPLACE, value: b}]}"),
        f"{RULE}.headerMatches[0].name: TE says how the request is sent",
    ),
    (
        http("{headerMatches: [{name: upgrade, mismatch: REPLACE, value: b}]}"),
        f"{RULE}.headerMatches[0].name: upgrade says how the request is sent",
    ),
    (
        http("{headerMatches: [{name: trailer, mismatch: REPLACE, value: b}]}"),
        f"{RULE}.headerMatches[0].name: trailer says how the request is sent",
    ),
    (
        http("{headerMatches: [{name: keep-alive, mismatch: REPLACE, value: b}]}"),
        f"{RULE}.headerMatches[0].name: keep-alive says how the request is sent",
    ),
    (
        http("{headerMatches: [{name: Expect, mismatch: REPLACE, value: b}]}"),
        f"{RULE}.headerMatches[0].name: Expect says how the request is sent",
    ),
    (
        http("{headerMatches: [{name: X-Envoy-Retry-On, mismatch: DELETE, value: b}]}"),
        f"{RULE}.headerMatches[0].name: X-Envoy-Retry-On is an order to the sidecar",
    ),
    (
        http("{headerMatches: [{name: x_a, mismatch: ADD, value: b}]}"),
        f"{RULE}.headerMatches[0].name: x_a has an underscore",
    ),
    (
        http('{headerMatches: [{name: ":authority", mismatch: ADD, value: b}]}'),
        f"{RULE}.headerMatches[0].name: ':authority' is not a header name",
    ),
    (
        http('{headerMatches: [{name: a, mismatch: ADD, value: "b\\r\\nc: d"}]}'),
        f"{RULE}.headerMatches[0].value: has control characters",
    ),
    (
        http('{headerMatches: [{name: a, mismatch: ADD, value: "b\\0"}]}'),
        f"{RULE}.headerMatches[0].value: has control characters",
    ),
    (
        http('{headerMatches: [{name: a, mismatch: ADD, value: "\\xe9"}]}'),
        f"{RULE}.headerMatches[0].value: has characters that are not printable ASCII",
    ),
    (
        http('{headerMatches: [{name: a, mismatch: ADD, value: " b"}]}'),
        f"{RULE}.headerMatches[0].value: begins or ends with a space",
    ),
    (
        http("{headerMatches: [{name: a, mismatch: ADD, value: %s}]}" % ("b" * 4097)),
        f"{RULE}.headerMatches[0].value: is longer than 4096",
    ),
    (
        http("{headerMatches: [{name: a, mismatch: APPEND, value: b}]}"),
        f"{RULE}.headerMatches[0].mismatch: 'APPEND' is not one of",
    ),
    (
        http("{headerMatches: [{name: a, mismatch: ADD, secret: {name: s, namespace: other}}]}"),
        f"{RULE}.headerMatches[0].secret.namespace: must be the policy's own namespace default",
    ),
    (
        http("{headerMatches: [{name: a, mismatch: ADD, secret: {name: s, key: k}}]}"),
        f"{RULE}.headerMatches[0].secret.key: unknown field",
    ),
    (
        http("{headerMatches: [{name: a, mismatch: ADD, secret: {name: ../s}}]}"),
        f"{RULE}.headerMatches[0].secret.name: '../s' is not a valid name",
    ),
    (
        http(
            "{headerMatches: [{name: a, mismatch: REPLACE, value: b}, {name: A, mismatch: REPLACE, value: c}]}"
        ),
        f"{RULE}.headerMatches[1].name: A is replaced twice",
    ),
    (
        ingress("{fromEndpoints: [{matchLabels: {'cidr:10.0.0.0/8': ''}}]}"),
        "spec.ingress[0].fromEndpoints[0].matchLabels.cidr:10.0.0.0/8: label source 'cidr' is not supported",
    ),
]

WRONG = [
    ("spec: {ingress: [{}]}", "spec.endpointSelector: is required"),
    ("spec: {endpointSelector: {}}", "spec: needs at least one item in ingress"),
    ("spec: {endpointSelector: {}, ingress: []}", "spec: needs at least one item in ingress"),
    ("{}", "spec: is required, or specs"),
    ("specs: []", "spec: is required, or specs"),
    ("spec: {endpointSelector: {}, ingres: [{}]}", "spec.ingres: unknown field; did you mean ingress?"),
    ("spec: {endpointSelector: {}, ingress: [{}], zzz: 1}", "spec.zzz: unknown field; remove it"),
    (
        ingress("{fromEndpoint: [{}]}"),
        "spec.ingress[0].fromEndpoint: unknown field; did you mean fromEndpoints?",
    ),
    ("spec: {endpointSelector: {}, ingress: {}}", "spec.ingress: must be a list, not an object"),
    (
        "spec: {endpointSelector: [], ingress: [{}]}",
        "spec.endpointSelector: must be an object with fields, not a list",
    ),
    (
        ingress("{fromEndpoints: [{}], fromCIDR: [10.0.0.0/8]}"),
        "spec.ingress[0]: fromEndpoints and fromCIDR cannot go together in one item",
    ),
    (
        ingress("{icmps: [{fields: [{type: 8}]}], toPorts: [{}]}"),
        "spec.ingress[0]: toPorts and icmps cannot go together in one item",
    ),
    (
        to_ports("{ports: [{port: 80}]}"),
        f'{PORT}.port: must be a string, not a number; put it in quotes: "80"',
    ),
    (to_ports('{ports: [{port: "080"}]}'), f"{PORT}.port: '080' is not a port"),
    (to_ports('{ports: [{port: "65536"}]}'), f"{PORT}.port: '65536' is not a port"),
    (
        to_ports('{ports: [{port: "1_000"}]}'),
        f"{PORT}.port: '1_000' is neither a port number nor a port name",
    ),
    (to_ports('{ports: [{port: "-1"}]}'), f"{PORT}.port: '-1' is neither"),
    (to_ports('{ports: [{port: "sixteen-letters-x"}]}'), f"{PORT}.port: 'sixteen-letters-x' is neither"),
    (to_ports('{ports: [{port: "²"}]}'), f"{PORT}.port: '²' is neither"),
    (
        to_ports("{ports: [{port: http, endPort: 90}]}"),
        f"{PORT}.endPort: cannot go with the named port 'http'",
    ),
    (to_ports('{ports: [{port: "0", endPort: 90}]}'), f'{PORT}.endPort: cannot go with port "0"'),
    (to_ports('{ports: [{port: "90", endPort: 80}]}'), f"{PORT}.endPort: 80 is below port 90"),
    (to_ports('{ports: [{port: "90", endPort: 65536}]}'), f"{PORT}.endPort: 65536 is too large"),
    (to_ports('{ports: [{port: "80", protocol: tcp}]}'), f"{PORT}.protocol: 'tcp' must be in capitals: TCP"),
    (to_ports('{ports: [{port: "80", protocol: GRE}]}'), f"{PORT}.protocol: protocol GRE is not supported"),
    (to_ports('{ports: [{port: "80", protocol: ICMP}]}'), f"{PORT}.protocol: ICMP has no ports"),
    (to_ports('{ports: [{port: "80", protocol: QUIC}]}'), f"{PORT}.protocol: 'QUIC' is not one of 'TCP'"),
    (
        to_ports("{{ports: [{}]}}".format(", ".join(f'{{port: "{i}"}}' for i in range(1, 42)))),
        "spec.ingress[0].toPorts[0].ports: has 41 items; at most 40 are allowed",
    ),
    (
        to_ports('{ports: [{port: "80"}], rules: {http: [{}]}}'),
        "spec.ingress[0].toPorts[0].ports[0].protocol: must be TCP beside HTTP rules",
    ),
    (
        to_ports('{ports: [{port: "0", protocol: TCP}], rules: {http: [{}]}}'),
        "spec.ingress[0].toPorts[0].ports[0].port: must be a port beside HTTP rules",
    ),
    (to_ports("{rules: {http: [{}]}}"), "spec.ingress[0].toPorts[0].ports: is required beside HTTP rules"),
    (http('{path: "/a("}'), f"{RULE}.path: this group is not closed"),
    (http('{method: "G(?=x)"}'), f"{RULE}.method: "),
    (http('{host: "[a"}'), f"{RULE}.host: "),
    (http('{path: "/\u20ac"}'), f"{RULE}.path: has characters beyond Latin-1"),
    (http('{path: "/a\\n"}'), f"{RULE}.path: has control characters"),
    (http("{headerMatches: [{value: x}]}"), f"{RULE}.headerMatches[0].name: is required"),
    (http("{headerMatches: [{name: 'a:b'}]}"), f"{RULE}.headerMatches[0].name: 'a:b' is not a header name"),
    (
        egress("{toCIDR: [10.0.0.1]}"),
        "spec.egress[0].toCIDR[0]: '10.0.0.1' has no prefix length; write 10.0.0.1/32",
    ),
    (egress("{toCIDR: [10.0.0.0/33]}"), "spec.egress[0].toCIDR[0]: '10.0.0.0/33' is not a CIDR block"),
    (
        egress("{toCIDR: [10.0.0.0/255.0.0.0]}"),
        "spec.egress[0].toCIDR[0]: '10.0.0.0/255.0.0.0' has a netmask",
    ),
    (
        egress("{toCIDR: ['::ffff:10.0.0.0/104']}"),
        "spec.egress[0].toCIDR[0]: '::ffff:10.0.0.0/104' is an IPv4 block",
    ),
    (egress("{toCIDRSet: [{}]}"), "spec.egress[0].toCIDRSet[0].cidr: is required"),
    (
        egress("{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16, 11.0.0.0/16]}]}"),
        "spec.egress[0].toCIDRSet[0].except[1]: 11.0.0.0/16 is not inside 10.0.0.0/8",
    ),
    (
        egress("{toCIDRSet: [{cidr: 10.0.0.0/8, except: ['2001:db8::/32']}]}"),
        "spec.egress[0].toCIDRSet[0].except[0]: 2001:db8::/32 is not inside 10.0.0.0/8",
    ),
    (ingress("{fromEntities: [hosts]}"), "spec.ingress[0].fromEntities[0]: 'hosts' is not one of 'all'"),
    (
        ingress("{fromEndpoints: [{matchExpressions: [{key: a, operator: In}]}]}"),
        "spec.ingress[0].fromEndpoints[0].matchExpressions[0].values: operator In needs at least one value",
    ),
    (
        ingress("{fromEndpoints: [{matchExpressions: [{key: a, operator: Exists, values: [x]}]}]}"),
        "spec.ingress[0].fromEndpoints[0].matchExpressions[0].values: operator Exists takes no values",
    ),
    (
        ingress("{fromEndpoints: [{matchLabels: {a: 1}}]}"),
        'spec.ingress[0].fromEndpoints[0].matchLabels.a: must be a string, not a number; put it in quotes: "1"',
    ),
    (
        ingress("{fromEndpoints: [{matchLabels: {a: 'x y'}}]}"),
        "spec.ingress[0].fromEndpoints[0].matchLabels.a: 'x y' is not a label value",
    ),
    (
        ingress("{icmps: [{fields: [{type: Ping}]}]}"),
        "spec.ingress[0].icmps[0].fields[0].type: 'Ping' is not an ICMP type",
    ),
    (
        ingress("{icmps: [{fields: [{type: 256}]}]}"),
        "spec.ingress[0].icmps[0].fields[0].type: 256 is not an ICMP type",
    ),
    (
        ingress("{icmps: [{fields: [{family: IPv6, type: Echo}]}]}"),
        "spec.ingress[0].icmps[0].fields[0].type: 'Echo' is not an ICMPv6 type",
    ),
    (
        "spec: {endpointSelector: {}, ingress: [{}], log: {value: %s}}" % ("x" * 33),
        "spec.log.value: is longer than 32",
    ),
    (
        'spec: {endpointSelector: {}, ingress: [{}], log: {value: "a\\eb"}}',
        "spec.log.value: has control characters",
    ),
    (
        "spec: {endpointSelector: {}, ingress: [{}], enableDefaultDeny: {ingress: 'yes'}}",
        "spec.enableDefaultDeny.ingress: must be true or false, not 'yes'",
    ),
    (
        "spec: {endpointSelector: {}, ingressDeny: [{authentication: {mode: disabled}}]}",
        "spec.ingressDeny[0].authentication: a deny rule",
    ),
    (
        "spec: {endpointSelector: {}, egressDeny: [{toFQDNs: [{}]}]}",
        "spec.egressDeny[0].toFQDNs: not supported",
    ),
]

CILIUM_ONLY = [
    (http("{pathPrefix: /a}"), f"{RULE}.pathPrefix: not a field of CiliumNetworkPolicy"),
    (http("{pathExact: /a}"), f"{RULE}.pathExact: not a field of CiliumNetworkPolicy"),
    (http("{upgrades: [websocket]}"), f"{RULE}.upgrades: not a field of CiliumNetworkPolicy"),
    (http("{allowAmbiguous: [DotSegment]}"), f"{RULE}.allowAmbiguous: not a field of CiliumNetworkPolicy"),
    (
        http("{headerMatches: [{name: a, operator: Prefix, value: b}]}"),
        f"{RULE}.headerMatches[0].operator: not a field of CiliumNetworkPolicy",
    ),
    (
        "spec: {endpointSelector: {}, ingress: [{}], audit: true}",
        "spec.audit: not a field of CiliumNetworkPolicy",
    ),
    ("spec: {endpointSelector: {}, ingress: [{}], denyResponse: Reset}", "spec.denyResponse: not a field of"),
    (
        "spec: {endpointSelector: {}, ingress: [{}], engine: Auto}",
        "spec.engine: not a field of CiliumNetworkPolicy",
    ),
    (
        "spec: {endpointSelector: {}, ingress: [{}], http: {}}",
        "spec.http: not a field of CiliumNetworkPolicy",
    ),
    (
        'spec: {endpointSelector: {}, ingressDeny: [{toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{}]}}]}]}',
        "spec.ingressDeny[0].toPorts[0].rules: not a field of CiliumNetworkPolicy; Cilium has no HTTP deny rules",
    ),
]

L7_ONLY = [
    (
        http("{headerMatches: [{name: a, operator: Prefix, value: b, mismatch: ADD}]}"),
        f"{RULE}.headerMatches[0].operator: mismatch ADD compares whole values",
    ),
    (
        http("{headerMatches: [{name: x-a, value: b, mismatch: LOG}]}").replace(
            "spec: {", "spec: {engine: Kernel, "
        ),
        "spec.engine: the kernel cannot change header x-a; write Auto, or remove mismatch",
    ),
    (
        http("{headerMatches: [{name: x-a, value: b, mismatch: ADD}]}").replace(
            "ingress: [", "ingressDeny: ["
        ),
        f"{RULE}.headerMatches[0].mismatch: a deny rule changes no headers".replace("ingress", "ingressDeny"),
    ),
    (http("{path: /a, pathPrefix: /a}"), f"{RULE}.pathPrefix: excludes path; keep one of them"),
    (http("{pathExact: /a, pathPrefix: /a}"), f"{RULE}.pathExact: excludes pathPrefix"),
    (http("{pathPrefix: a}"), f"{RULE}.pathPrefix: 'a' must begin with '/'"),
    (http("{pathExact: '/a?b'}"), f"{RULE}.pathExact: '/a?b' must be a path without query"),
    (http("{upgrades: [h2c]}"), f"{RULE}.upgrades[0]: 'h2c' is not one of 'websocket'"),
    (http("{allowAmbiguous: [Dots]}"), f"{RULE}.allowAmbiguous[0]: 'Dots' is not one of 'DotSegment'"),
    (
        http("{headerMatches: [{name: a, operator: Exact}]}"),
        f"{RULE}.headerMatches[0].value: operator Exact needs a value",
    ),
    (
        http("{headerMatches: [{name: a, operator: Absent, value: b}]}"),
        f"{RULE}.headerMatches[0].value: operator Absent takes no",
    ),
    (
        http("{headerMatches: [{name: a, operator: Prefix, value: ''}]}"),
        f"{RULE}.headerMatches[0].operator: operator Prefix with an",
    ),
    (http("{headerMatches: [{name: a, operator: Regex, value: '('}]}"), f"{RULE}.headerMatches[0].value: "),
    (
        "spec: {endpointSelector: {}, ingress: [{}], denyResponse: Teapot}",
        "spec.denyResponse: 'Teapot' is not one of",
    ),
    (
        "spec: {endpointSelector: {}, ingress: [{}], engine: kernel}",
        "spec.engine: 'kernel' is not one of 'Auto'",
    ),
    (
        (
            'spec: {endpointSelector: {}, ingressDeny: [{toPorts: [{ports: [{port: "80", protocol: TCP}], '
            "rules: {http: [{allowAmbiguous: [DotSegment]}]}}]}]}"
        ),
        "spec.ingressDeny[0].toPorts[0].rules.http[0].allowAmbiguous: permits nothing in a deny rule",
    ),
    (
        (
            'spec: {endpointSelector: {}, egressDeny: [{toPorts: [{ports: [{port: "80", protocol: TCP}], '
            "rules: {http: [{upgrades: [websocket]}]}}]}]}"
        ),
        "spec.egressDeny[0].toPorts[0].rules.http[0].upgrades: permits nothing in a deny rule",
    ),
]

KUBERNETES = [
    (
        "spec: {podSelector: {}, ingress: [{from: [{}]}]}",
        "spec.ingress[0].from[0]: needs podSelector, namespaceSelector or ipBlock",
    ),
    (
        "spec: {podSelector: {}, ingress: [{from: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]}]}",
        "spec.ingress[0].from[0].ipBlock: cannot go with podSelector",
    ),
    (
        "spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]}",
        "spec.ingress[0].from[0].ipBlock.except[0]: 10.0.0.0/8 is not strictly inside 10.0.0.0/8",
    ),
    (
        "spec: {podSelector: {}, ingress: [{ports: [{port: '80'}]}]}",
        "spec.ingress[0].ports[0].port: '80' is a number in quotes",
    ),
    (
        "spec: {podSelector: {}, ingress: [{ports: [{port: 0}]}]}",
        "spec.ingress[0].ports[0].port: 0 is not a port",
    ),
    (
        "spec: {podSelector: {}, ingress: [{ports: [{endPort: 80}]}]}",
        "spec.ingress[0].ports[0].endPort: needs a port",
    ),
    (
        "spec: {podSelector: {}, ingress: [{ports: [{port: 81, endPort: 80}]}]}",
        "spec.ingress[0].ports[0].endPort: 80 is below port 81",
    ),
    (
        "spec: {podSelector: {}, policyTypes: [ingress]}",
        "spec.policyTypes[0]: 'ingress' is not one of 'Ingress'",
    ),
    ("spec: {endpointSelector: {}}", "spec.endpointSelector: unknown field"),
    ("{}", "spec: is required"),
]


def cases() -> list[Any]:
    found = []
    for kind, head, group in (
        ("CNP", CNP, UNSUPPORTED + WRONG + CILIUM_ONLY),
        ("L7P", L7P, UNSUPPORTED + WRONG + L7_ONLY),
        ("NP", NP, KUBERNETES),
    ):
        for body, message in group:
            obj = {**yaml.safe_load(head), **yaml.safe_load(body)}
            found.append(pytest.param(obj, message, id=f"{kind}: {message[:70]}"))
    return found


@pytest.mark.parametrize(("obj", "message"), cases())
def test_a_wrong_policy_is_refused_with_its_field_and_one_sentence(obj: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(obj)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (None, "is not a Kubernetes object but nothing"),
        ([], "is not a Kubernetes object but a list"),
        ({"kind": "Pod"}, "kind: 'Pod' is not a policy; it must be one of L7Policy, ClusterL7Policy"),
        (
            {"kind": "L7Policy", "apiVersion": "v1"},
            "apiVersion: 'v1' is not that of L7Policy; write yett.dev/v1alpha1",
        ),
        (
            {
                "kind": "ClusterL7Policy",
                "apiVersion": "yett.dev/v1alpha1",
                "metadata": {"name": "p", "namespace": "x"},
            }
            | {"spec": {"endpointSelector": {}, "ingress": [{}]}},
            "metadata.namespace: ClusterL7Policy has no namespace; remove it",
        ),
        (
            {"kind": "L7Policy", "apiVersion": "yett.dev/v1alpha1", "metadata": {"name": "P!"}}
            | {"spec": {"endpointSelector": {}, "ingress": [{}]}},
            "metadata.name: 'P!' is not a valid name",
        ),
        (
            {
                "kind": "L7Policy",
                "apiVersion": "yett.dev/v1alpha1",
                "spec": {"endpointSelector": {}, "ingress": [{}]},
            },
            "metadata: is required",
        ),
        (
            {"kind": "ClusterL7Policy", "apiVersion": "yett.dev/v1alpha1", "metadata": {"name": "p"}}
            | yaml.safe_load(http("{headerMatches: [{name: a, mismatch: ADD, secret: {name: s}}]}")),
            f"{RULE}.headerMatches[0].secret.namespace: is required",
        ),
    ],
)
def test_an_object_that_is_no_policy_is_refused(obj: object, message: str) -> None:
    with pytest.raises(PolicyError, match="^" + re.escape(message)):
        parse_policy(obj)


def test_every_error_of_a_document_is_kept() -> None:
    obj = yaml.safe_load(L7P + ingress('{fromCIDR: [10.0.0.1], toPorts: [{ports: [{port: "010"}]}]}'))
    with pytest.raises(PolicyError) as caught:
        parse_policy(obj)
    fields = [error.field for error in (caught.value, *caught.value.others)]
    assert set(fields) == {"spec.ingress[0].toPorts[0].ports[0].port", "spec.ingress[0].fromCIDR[0]"}
    assert [finding.code for finding in lint(obj)] == ["YETT0001", "YETT0001"]
    assert {finding.severity for finding in lint(obj)} == {Severity.ERROR}


def test_null_means_absent_even_for_what_is_not_supported() -> None:
    obj = yaml.safe_load(CNP + egress("{toFQDNs: null, toServices: null, toEntities: [world], icmps: null}"))
    (policy,) = parse_policy(obj)
    assert policy.rules[0].peers is not None


def test_disabled_authentication_is_accepted() -> None:
    (policy,) = parse_policy(
        yaml.safe_load(CNP + ingress("{authentication: {mode: disabled}, fromEntities: [all]}"))
    )
    assert policy.rules[0].peers is None


def test_policies_are_known_by_their_kind() -> None:
    assert is_policy(yaml.safe_load(CNP))
    assert not is_policy({"kind": "Pod"})
    assert not is_policy("kind: L7Policy")
    assert source_of(yaml.safe_load(CNP)) == "CiliumNetworkPolicy/default/p"
    assert source_of({"kind": "ClusterL7Policy", "metadata": {"name": "c"}}) == "ClusterL7Policy/c"


scraps = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    "endpointSelector", "ingress", "egress", "ingressDeny", "fromEndpoints", "fromCIDR", "fromCIDRSet",
    "fromEntities", "toPorts", "ports", "port", "protocol", "rules", "http", "path", "method", "headers",
    "headerMatches", "matchLabels", "matchExpressions", "icmps", "fields", "type", "cidr", "except",
    "podSelector", "from", "ipBlock", "policyTypes", "log", "mismatch", "secret", "allowAmbiguous", "endPort",
]  # fmt: skip
bodies = st.recursive(
    scraps,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=examples(300))
@given(st.sampled_from([CNP, L7P, NP]), bodies)
def test_no_input_is_a_traceback(head: str, spec: Any) -> None:
    obj = {**yaml.safe_load(head), "spec": spec}
    try:
        parse_policy(obj)
    except PolicyError as error:
        assert error.field  # noqa: PT017 - either way it is fine
    lint(obj)
