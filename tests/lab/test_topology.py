"""Nodes, pods and services on the machine, without any policy."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from yett_lab import access, control, down, lab, listing, manifest, network, paths
from yett_lab.errors import InputError, LabError

from .conftest import NOTHING, machine

pytestmark = pytest.mark.net

EXAMPLES = Path(__file__).parents[2] / "manifests/examples"
APP = str(EXAMPLES / "app.yaml")


def apply(name: str, *bodies: dict[str, object], images: dict[str, str] | None = None) -> lab.Report:
    return lab.apply(name, list(manifest.parse(yaml.safe_dump_all(bodies), "t.yaml")), images)


def web(replicas: int) -> tuple[dict[str, object], dict[str, object]]:
    labels = {"app": "web"}
    container = {
        "name": "c",
        "image": "mendhak/http-https-echo",
        "ports": [{"containerPort": 8080, "name": "http"}],
    }
    return (
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": "http"}]},
        },
    )


def soon(condition: Callable[[], bool]) -> bool:
    """Whether it becomes true; containers write when they are scheduled."""
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def curl(name: str, *args: str, pod: str = "client") -> str:
    done = access.run_in_pod(name, pod, ["curl", "-s", "-m", "5", *args])
    assert done.returncode == 0, (args, done)
    return done.stdout


@pytest.fixture(scope="module")
def app(shared_name: str) -> str:
    lab.up(shared_name, manifest.read_files([APP]), nodes=2)
    return shared_name


@pytest.mark.parametrize("family", ["-4", "-6"])
@pytest.mark.parametrize(
    "host", ["api-service", "api-service.default", "api-service.default.svc.cluster.local"]
)
def test_a_service_resolves_by_name_over_both_families_and_nodes(app: str, family: str, host: str) -> None:
    answer = yaml.safe_load(curl(app, family, f"http://{host}/public"))
    assert (answer["path"], answer["hostname"]) == ("/public", "api-server")
    client = listing.rows(paths.Paths(app), access.load(paths.Paths(app)), "pods")[1]
    assert answer["ip"] == (client["ip"] if family == "-4" else client["ipv6"])


def test_pods_have_names_hosts_and_processes_of_their_own(app: str) -> None:
    assert access.run_in_pod(app, "client", ["hostname"]).stdout == "client\n"
    assert "10.96.0.10 api-service." in access.run_in_pod(app, "client", ["cat", "etc/hosts"]).stdout
    processes = access.run_in_pod(app, "client", ["ps", "-eo", "args="]).stdout
    assert "sleep 3600" in processes
    assert "pytest" not in processes


@pytest.mark.parametrize(
    ("command", "code"), [(["true"], 0), (["sh", "-c", "exit 7"], 7), (["no-such-command"], 127)]
)
def test_exec_returns_the_exit_code(app: str, command: list[str], code: int) -> None:
    assert access.run_in_pod(app, "client", command).returncode == code


def test_an_unknown_name_fails_at_once(app: str) -> None:
    assert access.run_in_pod(app, "client", ["curl", "-s", "http://nowhere"], timeout=3).returncode == 6


def test_an_unserved_port_of_a_service_is_refused_at_once(app: str) -> None:
    done = access.run_in_pod(app, "client", ["curl", "-s", "-m", "3", "http://api-service:81"])
    assert done.returncode == 7


def test_the_output_of_a_container_is_kept(app: str) -> None:
    curl(app, "http://api-service/logged")
    log = paths.Paths(app).pod_directory("default/api-server") / "server.log"
    assert soon(lambda: '"GET /logged"' in log.read_text())


def test_a_pod_that_is_not_there_is_named(app: str) -> None:
    with pytest.raises(
        InputError, match=f"no pod default/x in lab {app}; its pods: default/api-server, default/cl"
    ):
        access.run_in_pod(app, "x", ["true"])


def test_a_lab_that_is_up_cannot_come_up_again(app: str) -> None:
    with pytest.raises(LabError, match="is up; use `yettctl lab apply`"):
        lab.up(app)


def test_nothing_is_added_to_the_machines_own_network(app: str) -> None:
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
    for name in ("fabric", *(network.veth(f"default/{pod}") for pod in ("api-server", "client"))):
        assert f": {name}@" not in links
        assert f": {name}:" not in links
    assert "10.244." not in routes


def test_a_deployment_scales_and_its_service_follows(name: str) -> None:
    lab.up(name, manifest.read_files([APP]))
    assert apply(name, *web(3)).changes == ["deployment/web created", "service/web created"]
    names = {yaml.safe_load(curl(name, "http://web/"))["hostname"] for _ in range(40)}
    assert len(names) == 3
    apply(name, *web(1))
    assert len({yaml.safe_load(curl(name, "http://web/"))["hostname"] for _ in range(8)}) == 1
    lab.delete(name, list(manifest.parse(yaml.safe_dump_all(web(1)), "t.yaml")))
    assert access.run_in_pod(name, "client", ["curl", "-s", "http://web/"]).returncode == 6
    assert len(list(paths.NETNS.glob(f"yett-{name}-pod-*"))) == 2


def test_nginx_is_the_real_one(name: str) -> None:
    lab.up(name, manifest.read_files([APP]))
    bodies = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"nginx-{index}", "labels": {"app": "nginx"}},
            "spec": {
                "containers": [{"name": "c", "image": "nginx:1.27", "ports": [{"containerPort": 8080}]}]
            },
        }
        for index in (1, 2)
    ]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "nginx"},
        "spec": {"clusterIP": "None", "selector": {"app": "nginx"}},
    }
    assert apply(name, *bodies, service).warnings == []
    assert curl(name, "http://nginx:8080/x") == "nginx /x\n"
    hosts = access.run_in_pod(name, "client", ["cat", "/etc/hosts"]).stdout
    assert hosts.count("nginx.default.svc ") == 4


def test_an_image_option_runs_a_command(name: str) -> None:
    lab.up(name)
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "own"},
        "spec": {
            "containers": [{"name": "c", "image": "corp/x:1", "env": [{"name": "WORD", "value": "hello"}]}]
        },
    }
    apply(name, body, images={"corp/x": "sh -c 'echo $WORD $HOSTNAME; sleep 100'"})
    log = paths.Paths(name).pod_directory("default/own") / "c.log"
    assert soon(lambda: log.read_text() == "hello own\n")


def test_a_container_that_ends_is_shown_with_its_code(name: str) -> None:
    lab.up(name, manifest.read_files([APP]))
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "brief"},
        "spec": {
            "containers": [
                {
                    "name": "c",
                    "image": "busybox",
                    "command": ["sh", "-c", "exit 3"],
                    "ports": [{"containerPort": 1}],
                }
            ]
        },
    }
    assert apply(name, body).warnings == ["pod/brief: a container has ended; see `yettctl lab logs brief`"]
    rows = listing.rows(paths.Paths(name), access.load(paths.Paths(name)), "pods")
    assert [row["status"] for row in rows] == ["Running", "Error (3)", "Running"]


def test_a_bad_object_among_good_ones_changes_nothing(name: str) -> None:
    lab.up(name)
    good, _ = web(1)
    bad = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad"}, "spec": {}}
    with pytest.raises(InputError, match=r"t.yaml: document 2: spec.containers: expected at least one"):
        apply(name, good, bad)
    assert access.load(paths.Paths(name)).manifests == []
    assert not list(paths.NETNS.glob(f"yett-{name}-pod-*"))


def test_a_bad_object_at_the_start_leaves_no_lab(name: str) -> None:
    bad = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad"}, "spec": {}}
    with pytest.raises(InputError):
        lab.up(name, list(manifest.parse(yaml.safe_dump(bad), "t.yaml")))
    assert machine(name) == NOTHING


@pytest.mark.parametrize("step", ["mount_bpffs", "start_loaders", "push"])
def test_up_that_fails_half_way_leaves_nothing(name: str, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise LabError("the machine said no")

    monkeypatch.setattr(control, step, fail)
    with pytest.raises(LabError, match="the machine said no"):
        lab.up(name, manifest.read_files([APP]))
    assert machine(name) == NOTHING


def test_an_apply_that_the_nodes_refuse_keeps_the_old_objects(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.up(name, manifest.read_files([APP]))

    def fail(*_: object) -> None:
        raise LabError("the node said no")

    with monkeypatch.context() as patched:
        patched.setattr(control, "push", fail)
        with pytest.raises(LabError, match="the node said no"):
            apply(name, *web(1))
    assert {m.kind for m in access.load(paths.Paths(name)).manifests} == {"Pod", "Service"}
    assert apply(name, *web(1)).changes == ["deployment/web created", "service/web created"]
    assert yaml.safe_load(curl(name, "http://web/"))["hostname"].startswith("web-")


def test_down_removes_everything_and_says_whether_there_was_anything(name: str) -> None:
    lab.up(name, manifest.read_files([APP]), nodes=2)
    before = machine(name)
    assert len(before.namespaces) == 5
    assert down.down(name)
    assert machine(name) == NOTHING
    assert not down.down(name)


def test_down_works_on_half_a_lab_without_state(name: str) -> None:
    lab.up(name, manifest.read_files([APP]))
    paths.Paths(name).state.unlink()
    subprocess.run(["ip", "netns", "del", f"yett-{name}-pod-default.client"], check=True)
    assert down.down(name)
    assert machine(name) == NOTHING


def test_up_clears_what_a_crash_left(name: str) -> None:
    lab.up(name)
    subprocess.run(["ip", "netns", "del", f"yett-{name}-fabric"], check=True)
    assert lab.up(name, manifest.read_files([APP])).changes == [
        *("pod/api-server created", "service/api-service created", "pod/client created")
    ]
    assert "200" in curl(name, "-o", "/dev/null", "-w", "%{http_code}", "http://api-service/")


def test_two_labs_do_not_touch(app: str, name: str) -> None:
    lab.up(name, manifest.read_files([APP]))
    assert "200" in curl(name, "-o", "/dev/null", "-w", "%{http_code}", "http://api-service/")
    down.down(name)
    assert "200" in curl(app, "-o", "/dev/null", "-w", "%{http_code}", "http://api-service/")
