"""Engine Auto: a Service's `appProtocol` moves its port to the sidecar, live, and back."""

from __future__ import annotations

import pytest

from support.sidecarlab import SERVER, Lab, policy

pytestmark = [pytest.mark.net, pytest.mark.bpf]


def said(word: str) -> str:
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: spoken}}
spec:
  selector: {{app: {SERVER}}}
  ports: [{{port: 80, targetPort: 8082, appProtocol: {word}}}]
"""


def get(sidecar: Lab, target: str) -> str:
    return sidecar.curl("--http2-prior-knowledge", f"http://spoken{target}")


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_http_2_works_from_the_moment_that_a_service_says_it_is_spoken(sidecar: Lab, direction: str) -> None:
    chosen = policy(port=8082, direction=direction, extra="denyResponse: Forbidden")
    auto = chosen.replace("engine: Sidecar", "engine: Auto")
    sidecar.apply(auto, said("http"))
    assert get(sidecar, "/public") == "000", "the kernel engine denies the preface of HTTP/2"
    assert not any(item["rulesets"] for item in sidecar.sidecars().values())
    sidecar.apply(said("kubernetes.io/h2c"))
    assert get(sidecar, "/public") == "200"
    assert get(sidecar, "/private") == "403"
    sidecar.apply(said("http"))
    assert get(sidecar, "/public") == "000"
    sidecar.delete(auto, said("http"))
