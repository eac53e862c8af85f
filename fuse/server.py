"""One page over HTTP, for its own machine: no other file can be asked for, and nothing can be changed.

Bound to the loopback address, it answers only requests that name it so: a page elsewhere whose name was made to mean this machine (DNS
rebinding) gets nothing. Bound to another address it wants a token, which a browser sends once and keeps as a cookie. What is sent is
not encrypted: across a network that is not yours, use a tunnel (`ssh -L`).
"""

import hmac
import ipaddress
import secrets
import socket
import socketserver
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..store.errors import UsageError
from .live import Page

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 8150
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
TOKEN_BYTES = 32
SLOWEST_S = 30.0  # a request that takes longer to arrive is dropped


class PageServer(ThreadingHTTPServer):
    """Serves what a function gives.

    Attributes:
        token: that has to be shown; None: nobody is asked.
        local: bound to a loopback address.
    """

    daemon_threads = True

    def __init__(self, page: Callable[[], Page], address: str = LOOPBACK, port: int = 0, token: str | None = None):
        """Args: port: 0 takes any free one.

        Raises:
            UsageError: it can't be bound there, or another address than loopback was given and no token.
        """
        self.page, self.token = page, token
        self.local = is_loopback(address)
        if not self.local and token is None:
            raise UsageError(f"{address}: a page that other machines can reach needs a token")
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            super().__init__((address, port), PageHandler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"{address}, port {port}: can't be served here: {reason}") from error

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # http.server's asks the name service who this is, which may take long
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    @property
    def url(self) -> str:
        """What to open, with the token where one is wanted."""
        host = str(self.server_address[0])
        if host in ("0.0.0.0", "::"):  # noqa: S104 - all addresses of this machine: it is asked for by its name
            host = socket.gethostname()
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.server_port}/" + (f"?token={self.token}" if self.token else "")

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):  # a browser that went away is no error
            super().handle_error(request, client_address)


class PageHandler(BaseHTTPRequestHandler):
    """GET / and nothing else."""

    server: PageServer
    server_version, sys_version = "bmla", ""
    timeout = SLOWEST_S

    def do_GET(self) -> None:
        if self.server.local and host_name(self.headers.get("Host", "")) not in LOCAL_NAMES:
            self.refuse(HTTPStatus.FORBIDDEN, "this page is served to its own machine: ask for 127.0.0.1 or localhost")
            return
        asked = urlsplit(self.path)
        if self.server.token is not None:
            shown = parse_qs(asked.query).get("token", [""])[0]
            if matches(shown, self.server.token):
                self.remember()
                return
            if not matches(self.cookie(), self.server.token):
                self.refuse(HTTPStatus.UNAUTHORIZED, "open the address that the server printed, with its token")
                return
        if asked.path != "/":
            self.refuse(HTTPStatus.NOT_FOUND, "there is one page here: /")
            return
        page = self.server.page()
        if self.headers.get("If-None-Match") == f'"{page.tag}"':
            self.answer(HTTPStatus.NOT_MODIFIED, b"", ETag=f'"{page.tag}"')
        else:
            self.answer(HTTPStatus.OK, page.html, "text/html; charset=utf-8", ETag=f'"{page.tag}"')

    @property
    def cookie_name(self) -> str:
        return f"bmla-{self.server.server_port}"  # cookies of one host are shared by all its ports

    def cookie(self) -> str:
        try:
            found = SimpleCookie(self.headers.get("Cookie", "")).get(self.cookie_name)
        except CookieError:
            return ""
        return found.value if found else ""

    def remember(self) -> None:
        """Keeps the token in the browser and takes it out of the address, where history and bookmarks would keep it."""
        cookie = f"{self.cookie_name}={self.server.token}; Path=/; HttpOnly; SameSite=Strict"
        self.answer(HTTPStatus.SEE_OTHER, b"", Location="/", **{"Set-Cookie": cookie})

    def refuse(self, status: HTTPStatus, text: str) -> None:
        self.answer(status, f"{text}\n".encode())

    def answer(self, status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8", **headers: str) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": "frame-ancestors 'none'",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Silent: a page that looks for news asks every few seconds."""


def new_token() -> str:
    return secrets.token_urlsafe(TOKEN_BYTES)


def matches(shown: str, token: str) -> bool:
    """Takes as long for a token that is nearly right as for one that is not at all."""
    return hmac.compare_digest(shown.encode(), token.encode())


def host_name(header: str) -> str:
    """localhost:8150 -> localhost; [::1]:8150 -> ::1; empty where it can't be read."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
