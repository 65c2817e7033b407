"""The cluster's certificates, made by openssl, and kubeconfigs that carry them."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yett_lab.run import command

DAYS = "30"


@dataclass(frozen=True, slots=True)
class Authority:
    """One CA and what it has signed, in a directory: NAME.crt, NAME.key."""

    directory: Path

    def certificate(self, name: str = "ca") -> Path:
        return self.directory / f"{name}.crt"

    def key(self, name: str = "ca") -> Path:
        return self.directory / f"{name}.key"

    def create(self) -> None:
        """The CA itself, and the key that signs service accounts' tokens."""
        self.directory.mkdir(mode=0o700)
        argv = [
            "-x509",
            "-subj",
            "/CN=yett test cluster",
            "-days",
            DAYS,
            "-addext",
            "keyUsage=critical,keyCertSign",
        ]
        self._request("ca", *argv, "-out", str(self.certificate()))
        _openssl("genrsa", "-out", str(self.key("accounts")), "2048")
        _openssl(
            "rsa", "-in", str(self.key("accounts")), "-pubout", "-out", str(self.directory / "accounts.pub")
        )

    def issue(self, name: str, user: str, group: str = "", addresses: Sequence[str] = ()) -> None:
        """A certificate for a user, and for a server when there are addresses (DNS:... or IP:...)."""
        subject = (f"/O={group}" if group else "") + f"/CN={user}"
        request = self.directory / f"{name}.csr"
        extensions = self.directory / f"{name}.ext"
        usage = "clientAuth,serverAuth" if addresses else "clientAuth"
        names = f"subjectAltName={','.join(addresses)}\n" if addresses else ""
        extensions.write_text(f"extendedKeyUsage={usage}\n{names}")
        self._request(name, "-subj", subject, "-out", str(request))
        ca = ("-CA", str(self.certificate()), "-CAkey", str(self.key()), "-CAcreateserial")
        out = ("-days", DAYS, "-extfile", str(extensions), "-out", str(self.certificate(name)))
        _openssl("x509", "-req", "-in", str(request), *ca, *out)
        request.unlink()
        extensions.unlink()

    def kubeconfig(self, path: Path, name: str, server: str) -> None:
        """A kubeconfig file (JSON is YAML) with everything inside."""
        cluster = {"server": server, "certificate-authority-data": _encoded(self.certificate())}
        user = {
            "client-certificate-data": _encoded(self.certificate(name)),
            "client-key-data": _encoded(self.key(name)),
        }
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "yett", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "yett", "context": {"cluster": "yett", "user": name}}],
            "current-context": "yett",
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(document, indent=2) + "\n")

    def _request(self, name: str, *argv: str) -> None:
        key = (
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            str(self.key(name)),
        )
        _openssl("req", "-new", *key, *argv)


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _openssl(*argv: str) -> None:
    command(["openssl", *argv], what=f"make a certificate (openssl {argv[0]})")
