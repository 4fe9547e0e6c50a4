"""The image: what it has, what it has not, and the program that says whether a service is up."""

import http.server
import os
import socket
import subprocess
import sys
import threading

import pytest

from bookreader_backup_assets.runners.docker_engine import Engine
from tests.deploy.conftest import COPIED, ROOT
from tests.fixtures.docker import LABEL

HEALTHY = ROOT / "deploy" / "healthy.py"
LOOK = """
bookreader-backup --version && dagster --version && git --version && gpg --version | head -n 1
test -e "$DAGSTER_HOME/dagster.yaml"
if command -v pip pip3 uv gcc cc make pg_dump redis-server; then exit 3; fi
if find / -xdev \\( -name ca.crt -o -name '.env' -o -name '*.tests' \\) | grep .; then exit 4; fi
"""


@pytest.mark.docker
@pytest.mark.xdist_group("deploy")
def test_the_image_has_what_runs_and_nothing_that_builds(engine: Engine, project_image: str) -> None:
    """No compiler, no installer, no database, and no certificate or setting of whoever built it."""
    api = engine.api
    made = api.create_container(
        project_image,
        ["sh", "-ec", LOOK],
        host_config=api.create_host_config(network_mode="none", cap_drop=["ALL"], read_only=True),
        labels={LABEL: str(os.getpid())},
    )
    try:
        api.start(made)
        status = api.wait(made, timeout=60)["StatusCode"]
        assert status == 0, api.logs(made).decode()
    finally:
        api.remove_container(made, force=True, v=True)
    environment = api.inspect_image(project_image)["Config"]["Env"]
    assert [one for one in environment if one.startswith(("BACKUP_", "PIP_", "SSL_"))] == []


def test_the_build_is_given_what_the_image_is_made_of() -> None:
    """`.dockerignore` lets through what the Dockerfile copies, and nothing else."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == set(COPIED)
    assert "*" in lines


def test_what_answers_is_up_and_what_does_not_is_not() -> None:
    """By exit status, within the time that is given."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/nothing"
        wrong = subprocess.run(
            [sys.executable, HEALTHY, address], capture_output=True, timeout=30, check=False
        )
        right = subprocess.run(
            [sys.executable, HEALTHY, address.removesuffix("nothing"), "5"],
            capture_output=True,
            timeout=30,
            check=False,
            cwd=HEALTHY.parent,
        )
        server.shutdown()
    assert (wrong.returncode, right.returncode) == (1, 0), (wrong.stderr, right.stderr)
    assert b"404" in wrong.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for nobody in (f"http://127.0.0.1:{port}", f"127.0.0.1:{port}"):
        done = subprocess.run([sys.executable, HEALTHY, nobody], capture_output=True, timeout=60, check=False)
        assert done.returncode == 1, nobody
