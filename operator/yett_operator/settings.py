"""What an administrator may set; everything comes from the environment of the pod."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from yett_operator.logs import FORMATS
from yett_policy.cluster import RESPONSES

PREFIX = "YETT_"


class SettingsError(ValueError):
    """A setting that cannot be used; `str()` is one sentence that names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one replica."""

    namespace: str = "yett-system"
    """YETT_NAMESPACE: where the operator runs; its Lease, Secret and ConfigMap live there."""
    service: str = "yett-operator"
    """YETT_SERVICE: name of the Service in front of the operator, for the certificate."""
    pod: str = field(default_factory=socket.gethostname)
    """YETT_POD: name of this pod, for the Lease and Events."""
    address: str = "127.0.0.1"
    """YETT_ADDRESS: address of this pod, where other replicas find it."""
    host: str = "0.0.0.0"  # noqa: S104 - a pod's own address is not known to the user
    """YETT_HOST: address to listen on."""
    http_port: int = 8080
    """YETT_HTTP_PORT: probes and metrics; plain HTTP."""
    webhook_port: int = 9443
    """YETT_WEBHOOK_PORT: admission reviews."""
    sync_port: int = 8443
    """YETT_SYNC_PORT: the sync stream."""
    log_level: str = "INFO"
    """YETT_LOG_LEVEL: DEBUG, INFO, WARNING or ERROR."""
    log_format: str = "json"
    """YETT_LOG_FORMAT: json or text; one event a line in both."""
    deny_response: str = "Reset"
    """YETT_DENY_RESPONSE: Reset or Forbidden; how denied requests are answered where neither the
    policy (`denyResponse`) nor the namespace (annotation `yett.dev/deny-response`) says."""
    kubeconfig: str | None = None
    """YETT_KUBECONFIG: a file; left out: as kubectl does, else the pod's ServiceAccount."""
    run: str = field(default_factory=lambda: secrets.token_hex(4))
    """Tells two runs of one pod apart."""

    @property
    def identity(self) -> str:
        """Of this replica, as holder of the Lease."""
        return f"{self.pod}_{self.run}"

    @property
    def names(self) -> tuple[str, ...]:
        """That the certificate is for."""
        inner = f"{self.service}.{self.namespace}"
        return (self.service, inner, f"{inner}.svc", f"{inner}.svc.cluster.local")


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Settings by their variables; SettingsError for one that is wrong or unknown."""
    values: dict[str, str | int] = {}
    known = {name for name in Settings.__dataclass_fields__ if name != "run"}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or not text:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in known:
            # Kubernetes itself sets such variables for Services: YETT_OPERATOR_SERVICE_HOST.
            continue
        if not name.endswith("_port"):
            values[name] = text
        elif text.isdecimal() and int(text) <= 65535:
            values[name] = int(text)
        else:
            raise SettingsError(f"{variable}={text} is not a port; write a number from 0 to 65535")
    level = values.get("log_level", "INFO")
    if level not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise SettingsError(f"{PREFIX}LOG_LEVEL={level} is none of DEBUG, INFO, WARNING and ERROR")
    form = values.get("log_format", "json")
    if form not in FORMATS:
        raise SettingsError(f"{PREFIX}LOG_FORMAT={form} is none of {' and '.join(FORMATS)}")
    response = values.get("deny_response", "Reset")
    if response not in RESPONSES:
        raise SettingsError(f"{PREFIX}DENY_RESPONSE={response} is none of {' and '.join(RESPONSES)}")
    kubeconfig = values.get("kubeconfig")
    if isinstance(kubeconfig, str) and not Path(kubeconfig).is_file():
        raise SettingsError(f"{PREFIX}KUBECONFIG={kubeconfig} is no file")
    return Settings(**values)  # type: ignore[arg-type]
