"""Certificates for servers of tests, made by openssl: a good one, and one for each thing that can be wrong with one."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

#: For whom a certificate stands that is good on this machine, and for a name that only a proxy knows.
_HERE = "DNS:localhost,IP:127.0.0.1,DNS:server.test"

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Certificates:
    """A folder of them. `authority` signed all but the one of `self_signed`.

    Args:
        folder: Empty at first.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.authority = self._signed_by_itself("authority")
        self.self_signed = self._signed_by_itself("self_signed", "-addext", f"subjectAltName={_HERE}")
        self.good = self._signed("good", _HERE)
        self.expired = self._signed("expired", _HERE, days=-1)
        self.of_another_host = self._signed("of_another_host", "DNS:other.example")

    def _signed_by_itself(self, name: str, *options: str) -> Path:
        _openssl(
            "req", "-x509", *_NEW_KEY, "-keyout", self._key(name), "-out", self._path(name), "-subj", f"/CN={name}", *options
        )
        return self._path(name)

    def _signed(self, name: str, hosts: str, *, days: int = 2) -> Path:
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={hosts}\n")
        _openssl("req", "-new", *_NEW_KEY, "-keyout", self._key(name), "-out", request, "-subj", f"/CN={name}")
        signer = ("-CA", self.authority, "-CAkey", self._key("authority"), "-CAcreateserial")
        _openssl("x509", "-req", "-in", request, *signer, "-out", self._path(name), "-days", str(days), "-extfile", extensions)
        return self._path(name)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.pem"

    def _key(self, name: str) -> Path:
        return self._folder / f"{name}.key"


def serving(certificate: Path) -> ssl.SSLContext:
    """Return how a server speaks TLS with a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    return context


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
