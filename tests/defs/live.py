"""A live Dagster for tests: webserver and daemon on the project's own workspace, and its GraphQL."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

ROOT = Path(__file__).parents[2]
LOCATION = "bookreader_backup_assets.definitions"
UP, DONE = 90.0, 150.0
"""Seconds until the servers must answer, and until what was asked of them must have ended."""


@dataclass(frozen=True)
class Live:
    """A running webserver with its daemon."""

    url: str
    home: Path

    def ask(self, query: str, **variables: Any) -> Any:
        """Return the data that GraphQL answers. Raises what it calls an error."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                said = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from None
        assert "errors" not in said, said["errors"]
        return said["data"]

    def launch(
        self,
        job: str,
        day: str,
        *,
        assets: list[str] | None = None,
        checks: list[tuple[str, str]] | None = None,
    ) -> str:
        """Launch a run as the UI does, and return its id."""
        selector = {
            "repositoryLocationName": LOCATION,
            "repositoryName": "__repository__",
            "jobName": job,
        }
        if assets is not None:
            selector["assetSelection"] = [{"path": asset.split("/")} for asset in assets]
        if checks is not None:
            selector["assetCheckSelection"] = [
                {"assetKey": {"path": asset.split("/")}, "name": name} for asset, name in checks
            ]
        parameters = {
            "selector": selector,
            "runConfigData": {},
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": day}]},
        }
        said = self.ask(
            "mutation($p: ExecutionParams!) { launchRun(executionParams: $p) {"
            " __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }",
            p=parameters,
        )["launchRun"]
        assert said["__typename"] == "LaunchRunSuccess", said
        return str(said["run"]["runId"])

    def runs(self, **where: Any) -> list[dict[str, Any]]:
        """Return the runs that a filter finds, newest first."""
        return list(
            self.ask(
                "query($f: RunsFilter) { runsOrError(filter: $f) { ... on Runs { results {"
                " runId jobName status runConfigYaml tags { key value } } } } }",
                f=where,
            )["runsOrError"]["results"]
        )

    def events(self, run: str) -> list[dict[str, Any]]:
        """Return every event of a run, with whatever text each has."""
        said = self.ask(
            "query($r: ID!) { logsForRun(runId: $r, limit: 1000) { ... on EventConnection { events {"
            " __typename ... on MessageEvent { message stepKey }"
            " ... on ExecutionStepFailureEvent { error { message stack } failureMetadata {"
            "   description metadataEntries { label ... on TextMetadataEntry { text } } } }"
            " ... on MaterializationEvent { metadataEntries { label description"
            "   ... on TextMetadataEntry { text } ... on JsonMetadataEntry { jsonString }"
            "   ... on MarkdownMetadataEntry { mdStr } } } } } } }",
            r=run,
        )
        return list(said["logsForRun"]["events"])

    def checks(self, asset: str, day: str) -> dict[str, str]:
        """Return how the latest execution of each check of an asset's day ended."""
        names = self.ask(
            "query($k: AssetKeyInput!) { assetNodeOrError(assetKey: $k) { ... on AssetNode {"
            " assetChecksOrError { ... on AssetChecks { checks { name } } } } } }",
            k={"path": asset.split("/")},
        )["assetNodeOrError"]["assetChecksOrError"]["checks"]
        found = {}
        for check in names:
            executions = self.ask(
                "query($k: AssetKeyInput!, $n: String!) { assetCheckExecutions("
                "assetKey: $k, checkName: $n, limit: 50) { status partition } }",
                k={"path": asset.split("/")},
                n=check["name"],
            )["assetCheckExecutions"]
            ours = [one["status"] for one in executions if one["partition"] == day]
            found[check["name"]] = ours[0] if ours else "never made"
        return found


def until(what: str, done: Callable[[], Any], within: float = DONE) -> Any:
    """Wait until `done` answers something true, and return it."""
    deadline = time.monotonic() + within
    while not (answer := done()):
        assert time.monotonic() < deadline, f"{what}: not within {within:.0f} s"
        time.sleep(0.3)
    return answer


@contextmanager
def dagster_live(folder: Path, environ: dict[str, str]) -> Iterator[Live]:
    """Start webserver and daemon with the project's `dagster.yaml` and `workspace.yaml`; end both."""
    home = folder / "dagster"
    home.mkdir()
    shutil.copy(ROOT / "dagster.yaml", home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.get_runs_count()  # the two make its tables at once otherwise, and one of them ends
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("BACKUP_", "DAGSTER_"))
    }
    environ = {**clean, **environ, "DAGSTER_HOME": str(home), "PYTHONWARNINGS": "ignore"}
    workspace = ["-w", str(ROOT / "workspace.yaml")]
    server = ["dagster_webserver", "-h", "127.0.0.1", "-p", port, *workspace]
    with contextlib.ExitStack() as started:
        logs = [
            started.enter_context(_process(folder, name, arguments, environ))
            for name, arguments in (
                ("webserver", server),
                ("daemon", ["dagster._daemon", "run", *workspace]),
            )
        ]
        live = Live(f"http://127.0.0.1:{port}", home)
        try:
            until("the webserver answers", lambda: _answers(live), UP)
        except AssertionError as error:
            said = "\n".join(log.read_text(encoding="utf-8", errors="replace")[-3000:] for log in logs)
            raise AssertionError(f"{error}\n{said}") from None
        yield live


@contextmanager
def _process(folder: Path, name: str, arguments: list[str], environ: dict[str, str]) -> Iterator[Path]:
    path = folder / f"{name}.log"
    with path.open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield path
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def _answers(live: Live) -> bool:
    try:
        said = live.ask(
            "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } }"
            " ... on PythonError { message } } }"
        )["repositoriesOrError"]
    except OSError:
        return False
    return bool(said.get("nodes"))
