"""Serves metrics, health and the status page from its own threads. Read-only: it answers GET and HEAD."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import json
import logging
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import bottle

from anonymizer.errors import ConfigurationError
from service.log_event import LogEvent
from service.settings.declared import Settings
from service.settings.shown import shown_settings
from service.settings.types import Secret, StatusAddress
from service.status import metrics
from service.status.connections import Connections
from service.status.judgement import judge
from service.status.page_data import liveness, page_data, readiness
from service.status.snapshot import Snapshot

_STATUS_PAGE = LogEvent("status_page", "📟 Status page at http://%s/%s", "address note")

_PAGES = Path(__file__).parent / "pages"

#: The static files.
_FILES = {
    "/": "index.html",
    "/help": "help.html",
    **{
        f"/assets/{name}": name for name in ("status.css", "status.js", "uPlot.iife.min.js", "uPlot.min.css", "uPlot.LICENSE.txt")
    },
}

#: Forbid content from other servers, inline code and frames.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_PLAIN = "text/plain; charset=utf-8"


class StatusServer:
    """Listens from its creation until `close`.

    Args:
        address: The address to listen on; port 0: any free port.
        look: Returns a snapshot.
        settings: Shown without secrets.
        token: Required in every request; empty: not required.

    Raises:
        ConfigurationError: The service cannot listen on the address.
    """

    def __init__(self, address: StatusAddress, look: Callable[[], Snapshot], settings: Settings, token: Secret) -> None:
        logging.getLogger("waitress").setLevel(logging.ERROR)
        app = make_app(look, settings, token, loopback_only=address.is_loopback)
        listening = _listen(address)
        self.port: int = listening.getsockname()[1]
        self._server = Connections(app, listening)
        threading.Thread(target=self._server.run, name="status", daemon=True).start()
        note = "; it asks for STATUS_TOKEN" if token else ""
        _STATUS_PAGE.log(StatusAddress(address.host, self.port), note)

    def close(self) -> None:
        """Stop listening and end the threads."""
        self._server.task_dispatcher.shutdown(timeout=1)
        self._server.close()


def _listen(address: StatusAddress) -> socket.socket:
    try:
        family, _, _, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((where[0], where[1]), family=family)
    except OSError as error:
        # Python appends the address to the reason.
        reason = str(error.strerror or error).partition(" (while")[0]
        raise ConfigurationError(f"STATUS_ADDRESS {address} cannot be listened on ({reason})") from None


def make_app(look: Callable[[], Snapshot], settings: Settings, token: Secret, *, loopback_only: bool) -> bottle.Bottle:
    """Return the web application.

    Args:
        look: Returns a snapshot.
        settings: Shown without secrets.
        token: Required in every request; empty: not required.
        loopback_only: Whether only this machine can reach it.
    """
    app = bottle.Bottle()
    app.add_hook("before_request", partial(_authorize, token, loopback_only))
    answers = _Answers(look, settings)
    for path, answer in {
        "/metrics": answers.metrics,
        "/livez": answers.livez,
        "/readyz": answers.readyz,
        "/status.json": answers.status,
        "/settings.json": answers.settings,
        **{path: partial(_file, name) for path, name in _FILES.items()},
    }.items():
        app.route(path, ["GET", "HEAD"], answer)
    app.default_error_handler = _error
    return app


class _Answers:
    """Answers that are not static files."""

    def __init__(self, look: Callable[[], Snapshot], settings: Settings) -> None:
        self._look = look
        self._settings = settings

    def metrics(self) -> bottle.HTTPResponse:
        return _answer(200, metrics.CONTENT_TYPE, metrics.exposition(self._look()))

    def livez(self) -> bottle.HTTPResponse:
        now = self._look()
        judgement = judge(now)
        return _json(liveness(now, judgement), 200 if judgement.is_live else 503)

    def readyz(self) -> bottle.HTTPResponse:
        judgement = judge(self._look())
        return _json(readiness(judgement), 200 if judgement.is_ready else 503)

    def status(self) -> bottle.HTTPResponse:
        return _json(page_data(self._look()))

    def settings(self) -> bottle.HTTPResponse:
        return _json([{"name": name, "value": value} for name, value in shown_settings(self._settings)])


def _authorize(token: Secret, loopback_only: bool) -> None:
    """Raise a refusal as the answer, unless the request is allowed."""
    if token and not _has_token(token, bottle.request.get_header("Authorization", "")):
        raise _answer(401, _PLAIN, "STATUS_TOKEN is needed: as bearer token, or as password.\n", asks=True)
    if loopback_only and not token and not _is_local(bottle.request.get_header("Host", "")):
        # Against DNS rebinding: a web site whose name resolves to this machine must not read the page through a visitor's browser.
        raise _answer(403, _PLAIN, "Only localhost may be asked for.\n")


def _file(name: str) -> bottle.HTTPResponse:
    response = bottle.static_file(name, root=str(_PAGES))
    for header, value in _HEADERS.items():
        response.set_header(header, value)
    return response


def _error(error: bottle.HTTPError) -> str:
    for header, value in _HEADERS.items():
        error.set_header(header, value)
    error.content_type = _PLAIN
    return f"{error.status_line}\n"


def _json(content: Any, status: int = 200) -> bottle.HTTPResponse:
    return _answer(status, "application/json", json.dumps(content))


def _answer(status: int, content_type: str, body: str | bytes, *, asks: bool = False) -> bottle.HTTPResponse:
    asking = {"WWW-Authenticate": 'Basic realm="ECG anonymizer: any name, and STATUS_TOKEN as password", charset="UTF-8"'}
    headers = {**_HEADERS, "Content-Type": content_type, **(asking if asks else {})}
    return bottle.HTTPResponse(body, status, headers)


def _has_token(token: Secret, authorization: str) -> bool:
    """Return whether a header contains the token, as bearer token or as password."""
    kind, _, given = authorization.partition(" ")
    if kind.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return False
    elif kind.lower() != "bearer":
        return False
    return hmac.compare_digest(given.strip().encode(), token.reveal().encode())


def _is_local(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
