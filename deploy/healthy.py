"""Is it up? `healthy.py ADDRESS [SECONDS]`: exit status 0 if it answers, within so many seconds.

ADDRESS is the webserver's `http://…`, or where the code location serves: `host:port`, `unix:/path`. A code
location that answers has loaded its definitions. Cheap enough to be asked every few seconds: Dagster's own
commands take two seconds of processor time each.
"""

from __future__ import annotations

import sys
import time
import urllib.request

ANSWER = 5
"""Seconds for one answer."""


def ask(address: str) -> None:
    """Ask once. Raises where it does not answer, or is not ready to serve."""
    if address.startswith("http://"):
        with urllib.request.urlopen(address, timeout=ANSWER) as answer:  # noqa: S310 - as it says above
            answer.read()
        return
    import grpc  # noqa: PLC0415 - half a second that the webserver's check does not need
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415

    with grpc.insecure_channel(address) as channel:
        asked = health_pb2.HealthCheckRequest(service="DagsterApi")
        said = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=ANSWER)
    if said.status != health_pb2.HealthCheckResponse.SERVING:
        raise ConnectionError(f"it answers {said.status}")


def main(address: str, within: float = 0) -> None:
    """Ask until it answers; exit with status 1 if it has not `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        try:
            ask(address)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not up
            if time.monotonic() >= deadline:
                sys.exit(f"{address}: {type(error).__name__}: {error}")
            time.sleep(0.5)
        else:
            return


if __name__ == "__main__":
    main(sys.argv[1], *map(float, sys.argv[2:3]))
