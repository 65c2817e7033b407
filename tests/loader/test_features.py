"""Probes: what they say of the running kernel must be true, and they leave nothing behind."""

from __future__ import annotations

import os
import re
from errno import EACCES, EPERM
from pathlib import Path

import pytest

from yett_loader import features
from yett_loader.errors import KernelError, NotReady, NotSupported
from yett_loader.features import LOOP, LPM, RINGBUF, TCX, Feature

pytestmark = pytest.mark.bpf

RELEASE = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))


@pytest.mark.parametrize("feature", [TCX, RINGBUF, LPM, LOOP], ids=lambda feature: feature.name)
def test_a_kernel_that_is_new_enough_has_the_feature(feature: Feature) -> None:
    since = tuple(map(int, feature.since.split(".")))
    assert features.has(feature) is (since <= RELEASE)


def test_probes_leave_no_descriptor() -> None:
    before = descriptors()
    for feature in (TCX, RINGBUF, LPM, LOOP):
        features.has(feature)
    assert descriptors() == before


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_failure_that_the_kernel_explains_is_left_as_it_is() -> None:
    error = KernelError("load", "BPF object yett", EACCES)
    assert features.explain(error) is error


def test_a_missing_privilege_is_named() -> None:
    explained = features.explain(KernelError("load", "BPF object yett", EPERM))
    assert isinstance(explained, NotReady)
    assert "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON" in str(explained)


def test_missing_btf_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(features, "BTF", tmp_path / "vmlinux")
    explained = features.explain(KernelError("load", "BPF object yett", EACCES))
    assert isinstance(explained, NotReady)
    assert "built without BTF" in str(explained)


def test_a_missing_feature_is_named_with_its_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "has", lambda feature: feature is not LOOP)
    explained = features.explain(KernelError("load", "BPF object yett", EACCES))
    assert isinstance(explained, NotSupported)
    assert (explained.feature, explained.since) == ("the bpf_loop helper", "5.17")
