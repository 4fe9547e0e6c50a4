"""Whether BookReader answers: the last word on a system that was restored."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from http.client import HTTPException, HTTPMessage
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    Request,
)

from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_delay, wait_exponential

from bookreader_backup_assets.core.check import Outcome, failed, passed
from bookreader_backup_assets.core.errors import SettingsError

HEALTH = "health"
ANSWER = 10.0
"""Seconds for one answer."""
_KEPT = 300  # bytes of an answer that says what is wrong


@dataclass(frozen=True)
class Answer:
    """What one URL answered last: its status (None: nothing), and after how many seconds and tries."""

    status: int | None
    seconds: float
    tries: int
    said: str = ""

    @property
    def good(self) -> bool:
        """Whether it is a 2xx."""
        return self.status is not None and 200 <= self.status < 300


def wait_healthy(urls: Sequence[str], within: float) -> Outcome:
    """Ask every URL until it answers 2xx, at most `within` seconds for all together.

    A redirect is followed on the same host only. Raises `SettingsError` for what is no URL of HTTP.
    """
    for url in urls:
        if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
            raise SettingsError(
                f"{_label(url)} is not a URL to ask", hint="write BACKUP_HEALTH_URLS as http://host:port/path"
            )
    began = time.monotonic()
    answers = {_label(url): _answer(url, began + within) for url in urls}
    measured = {"urls": {url: asdict(answer) for url, answer in answers.items()}}
    seconds = round(time.monotonic() - began, 3)
    bad = [f"{url} answers {_words(answer)}" for url, answer in answers.items() if not answer.good]
    if bad:
        return failed(HEALTH, f"within {within:.0f} s, {'; '.join(bad)}", **measured, waited_seconds=seconds)
    said = "nothing was asked" if not urls else f"{', '.join(answers)} answered in {seconds:.1f} s"
    return passed(HEALTH, said, **measured, waited_seconds=seconds)


def answers(url: str, timeout: float) -> bool:
    """Whether `url` answers 2xx, asked once, within `timeout` seconds."""
    status, _ = _ask(url, timeout)
    return status is not None and 200 <= status < 300


def _answer(url: str, deadline: float) -> Answer:
    began = time.monotonic()
    tries = 0

    def ask() -> tuple[int | None, str]:
        nonlocal tries
        tries += 1
        return _ask(url, min(ANSWER, max(0.5, deadline - time.monotonic())))

    def last(state: RetryCallState) -> tuple[int | None, str]:
        assert state.outcome is not None
        said: tuple[int | None, str] = state.outcome.result()
        return said

    asking = Retrying(
        retry=retry_if_result(lambda said: said[0] is None or not 200 <= said[0] < 300),
        stop=stop_after_delay(max(0.0, deadline - began)),
        wait=wait_exponential(multiplier=0.1, max=2),
        retry_error_callback=last,
    )
    status, said = asking(ask)
    return Answer(status, round(time.monotonic() - began, 3), tries, said)


def _ask(url: str, timeout: float) -> tuple[int | None, str]:
    """Return the status, and what was said where it is not good."""
    try:
        with _opener().open(Request(url), timeout=timeout) as answered:  # noqa: S310 - http(s), seen to above
            return answered.status, ""
    except HTTPError as error:
        with error:
            try:
                said = error.read(_KEPT).decode("utf-8", "replace").strip()
            except (OSError, HTTPException):
                said = ""
        return error.code, said
    except (OSError, HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        return None, str(getattr(reason, "strerror", None) or reason or type(reason).__name__)


class _SameHost(HTTPRedirectHandler):
    def redirect_request(  # noqa: PLR0917 - as the library calls it
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """Follow to the same host; elsewhere it stays the answer that it is."""
        if urlsplit(newurl).hostname != urlsplit(req.full_url).hostname:
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> OpenerDirector:
    """HTTP only, and no proxy: what is asked is near."""
    opener = OpenerDirector()
    for handler in (HTTPHandler, HTTPSHandler, _SameHost, HTTPDefaultErrorHandler, HTTPErrorProcessor):
        opener.add_handler(handler())
    return opener


def _label(url: str) -> str:
    """A URL as it may be shown: without a password or a token in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _words(answer: Answer) -> str:
    status = "nothing" if answer.status is None else str(answer.status)
    return f"{status} ({answer.said})" if answer.said else status
