"""Keeps the certificate: in a Secret, in the TLS contexts that serve it, and where it is trusted."""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
import tempfile
from collections.abc import Sequence
from pathlib import Path

from yett_operator.kube.client import ApiError, Json, Kube
from yett_operator.metrics import CERTIFICATE_EXPIRY
from yett_operator.webhook.certificate import Bundle, renewed

log = logging.getLogger(__name__)

SECRET = "yett-operator-tls"  # noqa: S105 - its name
CA_CONFIG_MAP = "yett-operator-ca"
"""Where loaders find the CA."""
WEBHOOK = "yett-operator"
"""Name of the ValidatingWebhookConfiguration."""
ADOPT = 150.0
"""Seconds from publishing a new CA to using it: kubelets bring a ConfigMap to pods within two minutes."""
LOOK = 30.0
"""Seconds between two looks at the Secret."""


class Keeper:
    """One replica's view of the certificate; `context` always serves the newest one."""

    def __init__(
        self, kube: Kube, namespace: str, names: Sequence[str], *, look: float = LOOK, adopt: float = ADOPT
    ) -> None:
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.bundle: Bundle | None = None
        self.ready = asyncio.Event()
        """There is a certificate to serve."""
        self._kube = kube
        self._secrets = f"/api/v1/namespaces/{namespace}/secrets"
        self._config_maps = f"/api/v1/namespaces/{namespace}/configmaps"
        self._namespace = namespace
        self._names = names
        self._look = look
        self._adopt = adopt

    async def start(self) -> None:
        """Ready to serve on return; makes the Secret if there is none."""
        while self.bundle is None:
            try:
                await self.refresh()
            except ApiError as error:
                log.warning("%s", error)
                await asyncio.sleep(1)

    async def run(self) -> None:
        """On every replica, for ever: serve what the Secret has."""
        while True:
            await asyncio.sleep(self._look)
            try:
                await self.refresh()
            except ApiError as error:
                log.warning("%s", error)

    async def lead(self) -> None:
        """On the leader, for ever: renew it, and say where it is to be trusted."""
        while True:
            try:
                await self._renew()
                if self.bundle is not None:
                    await self._publish_ca(self.bundle.ca)
                    await self._patch_webhook(self.bundle.ca)
            except ApiError as error:
                log.warning("%s", error)
            await asyncio.sleep(self._look)

    async def refresh(self) -> None:
        """Read the Secret; make it if it is not there (the first replica to come does)."""
        try:
            secret = await self._kube.get(f"{self._secrets}/{SECRET}")
        except ApiError as error:
            if error.status != 404:
                raise
            secret = await self._create(renewed(None, self._names))
        bundle = Bundle.from_data(secret.get("data") or {})
        if bundle is None:
            log.warning("the Secret %s holds no certificate that can be read; making a new one", SECRET)
            bundle = renewed(None, self._names)
            await self._replace(secret, bundle)
        self._serve(bundle)

    async def _create(self, bundle: Bundle) -> Json:
        try:
            return await self._kube.post(self._secrets, _secret(self._namespace, bundle))
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            return await self._kube.get(f"{self._secrets}/{SECRET}")

    async def _renew(self) -> None:
        secret = await self._kube.get(f"{self._secrets}/{SECRET}")
        old = Bundle.from_data(secret.get("data") or {})
        new = renewed(old, self._names)
        if new == old:
            return
        # Trust first, then use.
        await self._publish_ca(new.ca)
        await self._patch_webhook(new.ca)
        if old is not None and new.ca != old.ca:
            await asyncio.sleep(self._adopt)
        await self._replace(secret, new)
        self._serve(new)
        log.info("the certificate is renewed until %s", new.expires())

    async def _replace(self, secret: Json, bundle: Bundle) -> None:
        metadata = {key: secret["metadata"][key] for key in ("name", "namespace", "resourceVersion")}
        await self._kube.put(
            f"{self._secrets}/{SECRET}", {**_secret(self._namespace, bundle), "metadata": metadata}
        )

    async def _publish_ca(self, ca: bytes) -> None:
        path = f"{self._config_maps}/{CA_CONFIG_MAP}"
        await self._kube.apply(
            path,
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": CA_CONFIG_MAP, "namespace": self._namespace},
                "data": {"ca.crt": ca.decode()},
            },
        )

    async def _patch_webhook(self, ca: bytes) -> None:
        path = f"/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{WEBHOOK}"
        try:
            configuration = await self._kube.get(path)
        except ApiError as error:
            if error.status == 404:  # whoever does not want the webhook leaves it out
                return
            raise
        bundle = base64.b64encode(ca).decode()
        operations = []
        for i, webhook in enumerate(configuration.get("webhooks") or ()):
            if webhook["clientConfig"].get("caBundle") != bundle:
                # `test`: the list may be another one by now.
                operations += [
                    {"op": "test", "path": f"/webhooks/{i}/name", "value": webhook["name"]},
                    {"op": "add", "path": f"/webhooks/{i}/clientConfig/caBundle", "value": bundle},
                ]
        if operations:
            await self._kube.patch(path, operations)

    def _serve(self, bundle: Bundle) -> None:
        if bundle == self.bundle:
            return
        with tempfile.TemporaryDirectory() as name:  # the ssl module reads only files
            pair = Path(name) / "pair.pem"
            pair.touch(mode=0o600)
            pair.write_bytes(bundle.certificate + bundle.key)
            self.context.load_cert_chain(pair)
        self.bundle = bundle
        self.ready.set()
        CERTIFICATE_EXPIRY.set(bundle.expires().timestamp())


def _secret(namespace: str, bundle: Bundle) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": SECRET, "namespace": namespace},
        "data": bundle.to_data(),
    }
