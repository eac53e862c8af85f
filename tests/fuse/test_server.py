import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bmla.fuse.live import Page
from bmla.fuse.server import PageServer, host_name, is_loopback, matches, new_token
from bmla.store.errors import UsageError

TOKEN = "t0ken-of-the-tests"  # noqa: S105


@contextmanager
def serving(page: Callable[[], Page], **options: Any) -> Iterator[PageServer]:
    with PageServer(page, **options) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: PageServer, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def still() -> Page:
    return Page("tag1", b"<!doctype html>the page")


@pytest.fixture(scope="module")
def local() -> Iterator[PageServer]:
    with serving(still) as server:
        yield server


@pytest.fixture(scope="module")
def guarded() -> Iterator[PageServer]:
    with serving(still, address="0.0.0.0", token=TOKEN) as server:  # noqa: S104 - that is what is tested
        yield server


def test_the_page_is_served_on_loopback_with_its_tag(local: PageServer) -> None:
    assert local.server_address[0] == "127.0.0.1"
    assert local.url == f"http://127.0.0.1:{local.server_port}/"
    status, headers, body = ask(local)
    assert (status, body) == (200, still().html)
    assert headers["ETag"] == '"tag1"'
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Python" not in headers["Server"]


def test_what_the_browser_has_is_not_sent_again(local: PageServer) -> None:
    status, _, body = ask(local, If_None_Match='"tag1"')
    assert (status, body) == (304, b"")
    assert ask(local, If_None_Match='"tag0"')[0] == 200


@pytest.mark.parametrize("path", ["/report.html", "/..%2f..%2fetc/passwd", "/../../etc/passwd", "/words/config.json"])
def test_there_is_nothing_but_the_page(local: PageServer, path: str) -> None:
    status, _, body = ask(local, path)
    assert status == 404
    assert b"one page" in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_nothing_but_get_is_answered(local: PageServer, method: str) -> None:
    assert ask(local, method=method)[0] == 501


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8150", "[::1", ""])
def test_a_name_that_was_made_to_mean_this_machine_is_refused(local: PageServer, host: str) -> None:
    status, _, body = ask(local, Host=host)
    assert status == 403
    assert still().html not in body


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:1", "[::1]:8150"])
def test_loopback_may_be_called_by_any_of_its_names_and_through_a_tunnel(local: PageServer, host: str) -> None:
    assert ask(local, Host=host)[0] == 200


def test_without_the_token_there_is_nothing(guarded: PageServer) -> None:
    for path, headers in (("/", {}), ("/?token=", {}), (f"/?token={TOKEN}x", {}), ("/", {"Cookie": f"bmla-1={TOKEN}"})):
        status, _, body = ask(guarded, path, **headers)
        assert status == 401
        assert still().html not in body
        assert TOKEN.encode() not in body


def test_the_token_is_shown_once_and_then_kept_as_a_cookie(guarded: PageServer) -> None:
    assert guarded.url.endswith(f":{guarded.server_port}/?token={TOKEN}")
    status, headers, _ = ask(guarded, f"/?token={TOKEN}")
    assert (status, headers["Location"]) == (303, "/")
    cookie, *attributes = headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict"} <= set(attributes)
    assert ask(guarded, Cookie=cookie)[0] == 200
    assert ask(guarded, Cookie=cookie + "x")[0] == 401
    assert ask(guarded, Cookie="a b;;=\x01")[0] == 401


def test_another_address_than_loopback_needs_a_token() -> None:
    with pytest.raises(UsageError, match="needs a token"):
        PageServer(still, address="0.0.0.0")  # noqa: S104
    everything = ("0.0.0.0", "::", "10.0.0.1", "example")  # noqa: S104
    assert not any(map(is_loopback, everything))
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))


def test_a_port_that_is_taken_is_one_line(local: PageServer) -> None:
    with pytest.raises(UsageError, match=f"port {local.server_port}: can't be served here"):
        PageServer(still, port=local.server_port)


def test_a_browser_that_goes_away_disturbs_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    big = Page("big", b"x" * 8_000_000)
    with serving(lambda: big) as server:
        with socket.create_connection(("127.0.0.1", server.server_port)) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            connection.recv(10)
        assert ask(server)[0] == 200
    assert capfd.readouterr().err == ""


def test_tokens_are_long_and_compared_whole() -> None:
    assert len({new_token() for _ in range(5)}) == 5
    assert len(new_token()) >= 40
    assert matches("ä", "ä")
    assert not matches("", "t")
    assert host_name("LOCALHOST:80") == "localhost"
