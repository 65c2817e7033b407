"""`yett-loader` as users run it: a process, its exit code, one sentence for each error."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from support import wanted as build
from support.netns import Topology
from yett_loader.snapshot import to_bytes
from yett_loader.store import Store

pytestmark = [pytest.mark.bpf, pytest.mark.net]


def loader(*argv: object, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "yett_loader", *map(str, argv)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def sentence(result: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error."""
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("yett-loader: ")
    return line.removeprefix("yett-loader: ")


def test_help_names_what_reads_and_what_changes() -> None:
    text = loader("--help").stdout
    for command in ("run", "load", "upgrade", "unload", "uninstall", "status", "plan"):
        assert f"\n  {command}" in text
    assert "OPENS the node" in text


def test_load_status_plan_upgrade_unload(bpffs: Path, tiny: Path, tiny_newer: Path, tmp_path: Path) -> None:
    pins = ("--pin-dir", bpffs / "yett")
    assert loader("load", *pins, "--object", tiny, "--size", "flows=512").returncode == 0
    status = loader("status", *pins, "--api", tmp_path / "none.sock")
    before = json.loads(status.stdout)
    assert before["agent"] == "not running"
    assert before["programs"].keys() == {"from_pod", "to_pod"}
    snapshot = tmp_path / "snapshot.json"
    snapshot.write_bytes(to_bytes(build.wanted(build.web(1))))
    planned = loader("plan", snapshot, *pins, "--state-dir", tmp_path / "state")
    assert planned.returncode == 0, planned.stderr
    lines = planned.stdout.splitlines()
    assert lines[0].startswith("PutRuleset(")
    assert lines[-1] == "SetEpoch(epoch=2)"
    assert loader("upgrade", *pins, "--object", tiny_newer).stdout == "upgraded 0 interfaces\n"
    after = json.loads(loader("status", *pins, "--api", tmp_path / "none.sock").stdout)
    assert after["programs"] != before["programs"]
    gone = loader("unload", *pins)
    assert "this node is open, no policy is enforced" in gone.stdout
    assert not (bpffs / "yett").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ("status", "--pin-dir", "{bpffs}/none", "--api", "/none"),
            "nothing is loaded there; run `yett-loader load`",
        ),
        (("load", "--pin-dir", "{tmp}/none", "--object", "{tiny}"), "is not on a BPF file system; mount one"),
        (
            ("load", "--pin-dir", "{bpffs}/y", "--object", "/none.bpf.o"),
            "cannot read the BPF object /none.bpf.o",
        ),
        (("upgrade", "--pin-dir", "{bpffs}/y", "--object", "{tiny}"), "nothing is loaded there"),
        (
            ("plan", "/none.json", "--pin-dir", "{bpffs}/y"),
            "cannot read /none.json: No such file or directory",
        ),
        (
            ("run", "--pin-dir", "{bpffs}/y", "--object", "{tiny}", "--state-dir", "/proc/none"),
            "cannot keep state in /proc/none",
        ),
        (
            (
                "run",
                "--pin-dir",
                "{bpffs}/y",
                "--object",
                "{tiny}",
                "--state-dir",
                "{tmp}/s",
                "--api",
                "/proc/none/s",
            ),
            "cannot listen on /proc/none/s",
        ),
    ],
)
def test_each_thing_the_node_lacks_is_one_sentence_and_exit_code_two(
    bpffs: Path, tmp_path: Path, tiny: Path, argv: tuple[str, ...], message: str
) -> None:
    result = loader(*(text.format(bpffs=bpffs, tmp=tmp_path, tiny=tiny) for text in argv))
    assert message in sentence(result)
    assert result.returncode == 2


def test_a_malformed_size_is_refused(bpffs: Path) -> None:
    result = loader("load", "--pin-dir", bpffs / "y", "--size", "flow=1")
    assert result.returncode == 2
    assert "write MAP=COUNT with MAP one of endpoints, events" in result.stderr


def test_without_privileges_the_sentence_names_them(bpffs: Path, tiny: Path) -> None:
    result = subprocess.run(
        [
            "setpriv",
            "--bounding-set=-all",
            "--inh-caps=-all",
            "--ambient-caps=-all",
            sys.executable,
            "-m",
            "yett_loader",
            "load",
            "--pin-dir",
            str(bpffs / "y"),
            "--object",
            str(tiny),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "not permitted; run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON" in sentence(result)
    assert result.returncode == 2


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_however_the_agent_ends_everything_stays_pinned(
    pods: Topology, bpffs: Path, tmp_path: Path, tiny: Path, ending: signal.Signals
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    with closing(Store(state)) as store:
        store.save_snapshot(build.wanted(build.web(), build.client()))
    socket = tmp_path / "api.sock"
    options = [
        "--pin-dir",
        str(bpffs / "yett"),
        "--object",
        str(tiny),
        "--state-dir",
        str(state),
        "--api",
        str(socket),
    ]
    pinned = []
    for _ in range(2):
        agent = pods.node.popen(
            [sys.executable, "-m", "yett_loader", "run", *options], stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 20
        while not socket.exists() and agent.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.05)
        status = json.loads(loader("status", "--api", socket).stdout)
        assert [item["ifindex"] for item in status["attached"]] == [pods.client.ifindex, pods.server.ifindex]
        assert status["endpoints"]["ready"] == 2
        agent.send_signal(ending)
        _, said = agent.communicate(timeout=20)
        assert agent.returncode == (0 if ending is signal.SIGTERM else -signal.SIGKILL), said
        assert "Traceback" not in said
        if ending is signal.SIGKILL:
            left = json.loads(loader("status", "--api", socket, "--pin-dir", bpffs / "yett").stdout)
            assert left["agent"] == "not running"
            socket.unlink()  # so that the next one is seen to listen
        pinned.append((status["programs"], status["attached"], status["epoch"]))
    assert pinned[0][:2] == pinned[1][:2]
    assert pinned[0][2] < pinned[1][2]
    with pods.node:
        assert "detached from 2 interfaces" in loader("uninstall", "--pin-dir", bpffs / "yett").stdout
