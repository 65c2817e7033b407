"""The small parts: slim objects, counters, certificates, reviews, settings, logs."""

from __future__ import annotations

import io
import json
import logging
import ssl
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from yett_operator.kube import slim
from yett_operator.logs import JsonFormatter, TextFormatter
from yett_operator.metrics import REGISTRY, Samples
from yett_operator.settings import SettingsError, from_environment
from yett_operator.status.hits import Hits, Total
from yett_operator.status.objects import status_name
from yett_operator.sync.counters import Counters
from yett_operator.webhook.certificate import CA_DAYS, DAYS, Bundle, renewed
from yett_operator.webhook.review import review
from yett_policy.cluster import NamedPort, Node, Service, ServicePort, Slice

REPOSITORY = Path(__file__).resolve().parents[2]


def pod(**parts: Any) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "shop", "name": "a", "uid": "u1", "labels": {"app": "a"}},
        "spec": {"nodeName": "n1", "containers": [], **parts.get("spec", {})},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], **parts.get("status", {})},
    }


def test_a_pod_is_reduced_to_what_policies_need() -> None:
    ports = [
        {"name": "web", "containerPort": 80},
        {"containerPort": 81},
        {"name": "dns", "containerPort": 53, "protocol": "UDP"},
    ]
    spec = {
        "containers": [{"ports": ports}],
        "initContainers": [
            {"restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 9}]},
            {"ports": [{"name": "once", "containerPort": 10}]},
        ],
        "serviceAccountName": "robot",
    }
    key, small = slim.pod(pod(spec=spec, status={"podIPs": [{"ip": "10.0.0.1"}, {"ip": "2001:db8::1"}]}))
    assert key == "shop/a"
    assert small is not None
    assert small.node == "n1"
    assert small.addresses == ("10.0.0.1", "2001:db8::1")
    assert small.workload.named_ports == (
        NamedPort("dns", 53, "UDP"),
        NamedPort("side", 9),
        NamedPort("web", 80),
    )
    assert small.workload.service_account == "robot"


def test_the_ports_that_the_kubelet_probes_are_known_by_number() -> None:
    web = {"name": "web", "containerPort": 8080}
    spec = {
        "containers": [
            {"name": "a", "ports": [web], "readinessProbe": {"httpGet": {"port": "web", "path": "/"}}},
            {
                "name": "b",
                "livenessProbe": {"grpc": {"port": 9090}},
                "startupProbe": {"exec": {"command": ["x"]}},
            },
            {
                "name": "c",
                "readinessProbe": {"tcpSocket": {"port": "web"}},
            },  # no port of its own has that name
        ],
        "initContainers": [
            {"name": "once", "livenessProbe": {"tcpSocket": {"port": 1}}},
            {"name": "d", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 7000}}},
        ],
    }
    _, small = slim.pod(pod(spec=spec))
    assert small is not None
    assert small.workload.probes == (7000, 8080, 9090)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_pod_is_gone_because_its_address_is_free(phase: str) -> None:
    assert slim.pod(pod(status={"phase": phase})) == ("shop/a", None)


def test_a_terminating_pod_stays() -> None:
    dying = pod()
    dying["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert slim.pod(dying)[1] is not None


def test_pods_of_one_workload_share_it() -> None:
    one, other = slim.pod(pod())[1], slim.pod(pod())[1]
    assert one is not None
    assert other is not None
    assert one.workload is other.workload


def test_a_node_has_its_addresses_but_not_its_names() -> None:
    obj = {
        "metadata": {"name": "n1"},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": "192.0.2.1"},
                {"type": "Hostname", "address": "n1"},
                {"type": "ExternalIP", "address": "198.51.100.1"},
            ]
        },
    }
    assert slim.node(obj) == ("n1", Node("n1", ("192.0.2.1", "198.51.100.1")))


def test_a_service_is_reduced_to_whom_it_selects_and_its_ports() -> None:
    ports = [
        {"port": 80, "targetPort": "web", "protocol": "TCP", "name": "http", "appProtocol": "grpc"},
        {"port": 53, "protocol": "UDP"},
    ]
    obj = {"metadata": {"namespace": "shop", "name": "a"}, "spec": {"selector": {"app": "a"}, "ports": ports}}
    made = Service(
        "shop",
        "a",
        {"app": "a"},
        (ServicePort(80, "web", "TCP", "http", "grpc"), ServicePort(53, 53, "UDP")),
    )
    assert slim.service(obj) == (("shop", "a"), made)
    obj["spec"] |= {
        "clusterIP": "10.96.0.1",
        "clusterIPs": ["10.96.0.1", "fd00::1"],
        "externalIPs": ["192.0.2.1"],
    }
    obj["status"] = {
        "loadBalancer": {
            "ingress": [{"ip": "192.0.2.2"}, {"ip": "192.0.2.3", "ipMode": "Proxy"}, {"hostname": "a"}]
        }
    }
    whole = slim.service(obj)[1]
    assert whole.addresses == ("10.96.0.1", "192.0.2.1", "192.0.2.2", "fd00::1")
    obj["spec"] |= {"clusterIP": "None", "clusterIPs": ["None"], "externalIPs": []}
    assert slim.service({**obj, "status": {}})[1].addresses == ()
    bare = {"metadata": {"namespace": "shop", "name": "a"}, "spec": {"type": "ExternalName"}}
    assert slim.service(bare)[1] == Service("shop", "a")


def test_of_a_slice_only_endpoints_that_kube_proxy_may_use_count() -> None:
    obj = {
        "metadata": {"namespace": "shop", "name": "a-x", "labels": {"kubernetes.io/service-name": "a"}},
        "addressType": "IPv4",
        "ports": [
            {"name": "http", "port": 8080, "protocol": "TCP"},
            {"name": "any", "port": None},
            {"port": 53},
        ],
        "endpoints": [
            {"addresses": ["10.0.0.3"]},
            {"addresses": ["10.0.0.1"], "conditions": {"ready": True, "serving": True}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": False, "serving": True, "terminating": True}},
            {"addresses": ["10.0.0.4"], "conditions": {"ready": False, "serving": False}},
        ],
    }
    ports = (("", "TCP", 53), ("http", "TCP", 8080))
    made = Slice("shop", "a-x", "a", ports, ("10.0.0.1", "10.0.0.2", "10.0.0.3"))
    assert slim.endpoint_slice(obj) == (("shop", "a-x"), made)
    assert slim.endpoint_slice({**obj, "addressType": "FQDN"})[1] is None
    assert slim.endpoint_slice({**obj, "metadata": {"namespace": "shop", "name": "a-x"}})[1] is None


@pytest.mark.parametrize(
    "text", ["", "n1", "0.0.0.0/0", "10.0.0.0/8", "::/0", "010.0.0.1", "10.0.0.1 ", "fe80::1%eth0"]
)
def test_what_is_no_address_claims_nothing_and_stops_nothing(text: str) -> None:
    """A kubelet may write anything as an address of its node, and one policy compiler is for all."""
    metadata = {"namespace": "shop", "name": "a"}
    for status in ({"podIPs": [{"ip": text}]}, {"podIPs": [], "podIP": text}):
        small = slim.pod(pod(spec={}, status=status))[1]
        assert small is not None
        assert small.prefixes == ()
    addresses = [{"type": "InternalIP", "address": each} for each in (text, "192.0.2.1")]
    assert slim.node({"metadata": {"name": "n1"}, "status": {"addresses": addresses}})[1].addresses == (
        "192.0.2.1",
    )
    spec = {"clusterIPs": [text], "externalIPs": [text, "192.0.2.1"], "selector": {"app": "a"}}
    assert slim.service({"metadata": metadata, "spec": spec})[1].addresses == ("192.0.2.1",)
    of = {**metadata, "labels": {"kubernetes.io/service-name": "a"}}
    parts = {"addressType": "IPv4", "endpoints": [{"addresses": [text, "10.0.0.1"]}]}
    part = slim.endpoint_slice({"metadata": of, **parts})[1]
    assert part is not None
    assert part.addresses == ("10.0.0.1",)


@pytest.mark.parametrize(
    "spec",
    [
        {"number": 301, "labels": ["k8s:app=a"]},
        {"number": 300, "labels": ["k8s:b=1", "k8s:a=1"]},
        {"number": 300, "labels": []},
        {},
    ],
)
def test_an_identity_that_is_not_what_its_name_says_does_not_count(spec: dict[str, Any]) -> None:
    assert slim.identity({"metadata": {"name": "300"}, "spec": spec})[1] is None


def test_the_name_of_a_status_is_unique_also_for_the_longest_names() -> None:
    def of(kind: str, name: str) -> str:
        return status_name(slim.SlimPolicy(kind, "default", name, "u", 1, b""))

    assert of("L7Policy", "api") == "l7policy-api"
    names = {of(kind, "a" * 252 + end) for kind in ("L7Policy", "NetworkPolicy") for end in "bc"}
    assert len(names) == 4
    assert all(len(name) <= 253 for name in names)


def test_hits_are_added_up_over_nodes_and_restarts() -> None:
    hits = Hits()
    allow = "L7Policy/default/p:ingress[0].toPorts[0].rules.http[1]"
    deny = "L7Policy/default/p:default-deny, L7Policy/default/q:default-deny"
    assert hits.counted("n1", {allow: 5, deny: 2, "none": 7}) == {
        "L7Policy/default/p",
        "L7Policy/default/q",
    }
    hits.counted("n2", {allow: 1, "L7Policy/default/p:specs[1].ingressDeny[0]": 4})
    assert hits.of("L7Policy/default/p") == Total(6, 6)
    assert hits.of("L7Policy/default/q") == Total(0, 2)
    assert hits.counted("n1", {allow: 5, deny: 2}) == set()
    hits.counted("n1", {allow: 1})
    assert hits.of("L7Policy/default/p").allowed == 7


NAMES = ("yett-operator.yett-system.svc", "10.0.0.1")
START = datetime(2026, 1, 1, tzinfo=UTC)


def served(bundle: Bundle) -> x509.Certificate:
    return x509.load_pem_x509_certificate(bundle.certificate)


def test_a_certificate_is_kept_until_a_third_of_its_time_is_left_and_then_renewed() -> None:
    first = renewed(None, NAMES, START)
    assert renewed(first, NAMES, START + timedelta(days=DAYS / 2)) == first
    second = renewed(first, NAMES, START + timedelta(days=DAYS * 0.7))
    assert second.ca == first.ca
    assert served(second).not_valid_after_utc > served(first).not_valid_after_utc


def test_a_certificate_for_other_names_is_made_at_once() -> None:
    first = renewed(None, NAMES, START)
    second = renewed(first, [*NAMES, "other.example"], START)
    assert second.certificate != first.certificate
    assert second.ca == first.ca


def test_a_new_ca_is_trusted_beside_the_old_one() -> None:
    first = renewed(None, NAMES, START)
    second = renewed(first, NAMES, START + timedelta(days=CA_DAYS * 0.7))
    assert len(x509.load_pem_x509_certificates(second.ca)) == 2
    assert first.ca in second.ca
    third = renewed(second, NAMES, START + timedelta(days=CA_DAYS * 1.4))
    assert len(x509.load_pem_x509_certificates(third.ca)) == 2, "the first CA has expired"


def test_the_certificate_verifies_in_tls(tmp_path: Path) -> None:
    bundle = renewed(None, NAMES)
    pair = tmp_path / "pair"
    pair.write_bytes(bundle.certificate + bundle.key)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pair)
    client = ssl.create_default_context(cadata=bundle.ca.decode())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname=NAMES[0]),
    ]
    done = 0
    for _ in range(10):
        for side in sides:
            try:
                side.do_handshake()
                done += 1
            except ssl.SSLWantReadError:
                pass
    assert done >= 2


def test_a_bundle_survives_its_secret_and_a_broken_secret_is_none() -> None:
    bundle = renewed(None, NAMES)
    assert Bundle.from_data(bundle.to_data()) == bundle
    assert Bundle.from_data({**bundle.to_data(), "tls.crt": "AAAA"}) is None
    assert Bundle.from_data({}) is None


def l7policy(spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "yett.dev/v1alpha1",
        "kind": "L7Policy",
        "metadata": {"name": "p", "namespace": "default", "managedFields": [{"x": 1}]},
        "spec": {"endpointSelector": {}, **spec},
    }


def test_a_review_names_the_field_in_one_sentence() -> None:
    port = {"port": "80", "protocol": "TCP"}
    bad = l7policy({"ingress": [{"toPorts": [{"ports": [port], "rules": {"http": [{"path": "/(a"}]}}]}]})
    answer = review(bad)
    assert answer.error.startswith("spec.ingress[0].toPorts[0].rules.http[0].path: ")
    assert "\n" not in answer.error


def test_a_review_finds_the_misspelt_field() -> None:
    answer = review(l7policy({"ingress": [{"fromEndpoint": [{}]}]}))
    assert answer.error == "spec.ingress[0].fromEndpoint: unknown field; did you mean fromEndpoints?"


def test_a_review_warns_of_what_is_legal_and_surprising() -> None:
    answer = review(l7policy({"ingress": [{"fromEndpoints": []}]}))
    assert answer.error == ""
    assert answer.warnings
    assert "YETT1006" in answer.warnings[0]
    many = review(l7policy({"ingress": [{"fromEndpoints": []}] * 40}))
    assert len(many.warnings) == 16
    assert all(len(text) <= 256 for text in many.warnings)


def test_settings_come_from_the_environment_and_wrong_ones_are_named() -> None:
    found = from_environment(
        {"YETT_NAMESPACE": "ns", "YETT_SYNC_PORT": "0", "YETT_OPERATOR_SERVICE_HOST": "10.0.0.1", "HOME": "/"}
    )
    assert found.namespace == "ns"
    assert found.sync_port == 0
    assert "yett-operator.ns.svc" in found.names
    with pytest.raises(SettingsError, match="YETT_HTTP_PORT=x is not a port"):
        from_environment({"YETT_HTTP_PORT": "x"})
    with pytest.raises(SettingsError, match="YETT_LOG_FORMAT=xml is none of json and text"):
        from_environment({"YETT_LOG_FORMAT": "xml"})
    with pytest.raises(SettingsError, match="YETT_DENY_RESPONSE=403 is none of Reset and Forbidden"):
        from_environment({"YETT_DENY_RESPONSE": "403"})
    with pytest.raises(SettingsError, match="YETT_LOG_LEVEL=LOUD is none of"):
        from_environment({"YETT_LOG_LEVEL": "LOUD"})


def test_every_metric_is_documented_and_every_documented_one_is_exported() -> None:
    counters = Counters()
    for each in (counters.refused, counters.updates, counters.problems):
        each["x"] = 1
    families = [*REGISTRY.collect(), *Samples(counters.samples).collect()]
    suffix = {"counter": "_total"}
    exported = {family.name + suffix.get(family.type, ""): family for family in families}
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (REPOSITORY / "docs/operator.md").read_text().splitlines()
        if line.startswith("| `yett_")
    ]
    documented: dict[str, tuple[str, set[str]]] = {}
    for names, types, labels in rows:
        each = [name.strip(" `") for name in names.split(",")]
        kinds = [kind.strip() for kind in types.split(",")]
        for name, kind in zip(each, kinds if len(kinds) == len(each) else kinds * len(each), strict=True):
            documented[name] = (kind, set(filter(None, labels.split(", "))))
    assert documented.keys() == exported.keys()
    for name, family in exported.items():
        kind, labels = documented[name]
        assert family.type == kind, name
        assert family.documentation
        collector = REGISTRY._names_to_collectors.get(name)
        found = {label for sample in family.samples for label in sample.labels}
        assert labels == set(collector._labelnames if collector is not None else found), name
        assert (name.endswith("_total")) is (kind == "counter"), name
        assert kind != "histogram" or name.endswith("_seconds"), name


def test_a_log_line_of_text_is_one_line_too() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter())
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "bad %s", ("a\nb\x1b[31m",), None)
    try:
        int("no number")
    except ValueError:
        record.exc_info = sys.exc_info()
    handler.handle(record)
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()
    assert "bad a\\nb" in line
    assert line.endswith("ValueError: invalid literal for int() with base 10: 'no number'")


def test_a_log_line_is_one_line_of_json_whatever_is_in_it() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("test.of.json")
    logger.propagate = False
    logger.addHandler(handler)
    logger.warning("evil \x1b[31m %s", "\n{}", extra={"node": "n1"})
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert entry["message"] == "evil \x1b[31m \n{}"
    assert entry["node"] == "n1"
    assert "\x1b" not in line
