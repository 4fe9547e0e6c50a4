"""A restored system answers, or it is said what it answers instead."""

import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bookreader_backup_assets.actions.health import wait_healthy
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.errors import SettingsError


@contextlib.contextmanager
def _serving(answer):
    """A server that calls `answer(path)` for a status, headers and a body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, headers, body = answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

        def log_message(self, *said):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_all_that_answer_are_healthy():
    """Each URL's status and seconds are measured."""
    with _serving(lambda path: (200 if path == "/health" else 204, {}, b"")) as url:
        found = wait_healthy([f"{url}/health", f"{url}/books"], 5)
    assert found.passed
    urls = found.measured["urls"]
    assert [urls[f"{url}/{name}"]["status"] for name in ("health", "books")] == [200, 204]
    assert all(0 <= one["seconds"] < 5 and one["tries"] == 1 for one in urls.values())


def test_one_that_starts_slowly_is_waited_for():
    """503 while it starts, then 200."""
    answers = [(503, {}, b"starting")] * 3
    with _serving(lambda _: answers.pop() if answers else (200, {}, b"")) as url:
        found = wait_healthy([url + "/h"], 10)
    assert found.passed
    assert found.measured["urls"][f"{url}/h"]["tries"] == 4


def test_one_that_stays_unhealthy_fails_with_what_it_says():
    """The good ones beside it do not hide it."""
    with _serving(lambda p: (503, {}, b"no database") if p == "/b" else (200, {}, b"")) as url:
        found = wait_healthy([f"{url}/a", f"{url}/b"], 1)
    assert found.verdict is Verdict.FAILED
    assert f"{url}/b answers 503 (no database)" in found.message
    assert "/a answers" not in found.message


def test_nobody_there_fails():
    """A refused connection is asked again until the deadline."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening
        found = wait_healthy([f"http://127.0.0.1:{taken.getsockname()[1]}/h"], 1)
    assert found.verdict is Verdict.FAILED
    assert "answers nothing (Connection refused)" in found.message


def test_a_hanging_server_does_not_hang_us():
    """It accepts, and never says a word."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        began = time.monotonic()
        found = wait_healthy([f"http://127.0.0.1:{mute.getsockname()[1]}/h"], 1)
    assert found.verdict is Verdict.FAILED
    assert time.monotonic() - began < 4


def test_an_endless_answer_is_cut():
    """What it says is kept in part."""
    with _serving(lambda _: (500, {}, b"x" * 10_000_000)) as url:
        found = wait_healthy([url + "/h"], 1)
    assert len(found.message) < 1000


def test_a_redirect_is_followed_at_home_only():
    """Another host that is well says nothing about this one."""
    with _serving(lambda _: (200, {}, b"")) as other:
        away = other.replace("127.0.0.1", "localhost")
        where = {"/home": "/there", "/away": f"{away}/"}
        with _serving(
            lambda path: (307, {"Location": where[path]}, b"") if path in where else (200, {}, b"")
        ) as url:
            assert wait_healthy([f"{url}/home"], 1).passed
            found = wait_healthy([f"{url}/away"], 1)
    assert found.verdict is Verdict.FAILED
    assert "answers 307" in found.message


@pytest.mark.parametrize("url", ["file:///etc/passwd", "127.0.0.1:8000", "http://"])
def test_what_is_no_url_of_http_is_refused(url):
    """Before anything is asked."""
    with pytest.raises(SettingsError, match="is not a URL to ask"):
        wait_healthy([url], 1)


def test_secrets_in_a_url_are_not_told():
    """Neither a password nor a token ends in a report."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        found = wait_healthy([f"http://me:hunter2@127.0.0.1:{taken.getsockname()[1]}/h?token=hunter3"], 0.1)
    assert "hunter" not in repr(found)
