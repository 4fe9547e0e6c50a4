"""The images of a set on a host that has them, has others, or has none."""

import contextlib
import gzip
import hashlib
import io
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bookreader_backup_assets.core.errors import BackupError, SourceAbsentError, SourceError
from bookreader_backup_assets.runners.docker import images
from bookreader_backup_assets.runners.docker_engine import Engine
from bookreader_backup_assets.runners.docker_images import Need, needed, provide

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.fixture
def registry(engine, image):
    """A registry on this machine that has one small image; its address, and the image's digest."""
    blobs = {}

    def blob(data, kind):
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        blobs[digest] = data
        return {"mediaType": kind, "size": len(data), "digest": digest}

    with tarfile.open(fileobj=io.BytesIO(b"".join(engine.api.get_image(image("busybox"))))) as saved:
        said = json.load(saved.extractfile("manifest.json"))[0]
        config = json.load(saved.extractfile(said["Config"]))
        layers = [gzip.compress(saved.extractfile(name).read(), 1) for name in said["Layers"]]
    config["config"]["Labels"] = {"pulled": "from a registry"}  # so that it is not the one that is here
    config = json.dumps(config).encode()
    prefix = "application/vnd.docker."
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": blob(config, prefix + "container.image.v1+json"),
        "layers": [blob(layer, prefix + "image.rootfs.diff.tar.gzip") for layer in layers],
    }
    digest = blob(json.dumps(document).encode(), MANIFEST)["digest"]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rpartition("/")[2]
            found = b"{}" if self.path == "/v2/" else blobs.get(name)
            self.send_response(404 if found is None else 200)
            if "/manifests/" in self.path:
                self.send_header("Content-Type", MANIFEST)
                self.send_header("Docker-Content-Digest", name)
            self.send_header("Content-Length", str(len(found or b"")))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(found or b"")

        do_HEAD = do_GET  # noqa: N815 - as the library calls it

        def log_message(self, *said):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        repository = f"127.0.0.1:{server.server_port}/bookreader/redis"
        identity = f"sha256:{hashlib.sha256(config).hexdigest()}"
        recorded = {"image": f"{repository}:7", "id": identity, "digest": f"{repository}@{digest}"}
        try:
            yield recorded
        finally:
            server.shutdown()
            thread.join()
            for name in (recorded["image"], recorded["digest"]):
                with contextlib.suppress(BackupError), engine.guarded():
                    engine.api.remove_image(name, force=True)


def _one(engine, recorded):
    (found,) = needed(engine, {"redis": recorded})
    return found


def test_what_runs_is_there(engine, bookreader_containers):
    """What a manifest records of running containers needs nothing."""
    recorded = images(engine, project=bookreader_containers.project)
    found = needed(engine, recorded)
    assert [one.service for one in found] == ["backend", "postgres", "redis"]
    assert {one.need for one in found} == {Need.NOTHING}
    for one in found:
        provide(engine, one)


def test_an_image_is_pulled_by_its_digest(engine, registry):
    """It is here afterwards under its name, and is the one that was recorded."""
    before = _one(engine, registry)
    assert before.need is Need.PULL
    assert "is pulled as" in str(before)
    provide(engine, before)
    assert _one(engine, registry).need is Need.NOTHING
    with engine.guarded():
        assert engine.api.inspect_image(registry["image"])["Id"] == registry["id"]


def test_another_version_under_the_name_is_told_and_replaced_if_asked(engine, image, registry):
    """A tag such as `7-alpine` moves on."""
    repository, _, tag = registry["image"].rpartition(":")
    engine.api.tag(image("busybox"), repository, tag)
    found = _one(engine, registry)
    assert found.need is Need.OTHER
    assert "another version than the recorded" in str(found)
    provide(engine, found)
    assert _one(engine, registry).need is Need.NOTHING


def test_an_image_that_lost_its_name_gets_it_again(engine, registry):
    """Nothing is pulled that is here."""
    provide(engine, _one(engine, registry))
    repository = registry["image"].rpartition(":")[0]
    engine.api.tag(registry["image"], repository, "another")
    engine.api.remove_image(registry["image"])
    found = _one(engine, registry)
    assert (found.need, found.held) == (Need.PULL, True)
    provide(engine, found)
    engine.api.remove_image(f"{repository}:another")
    assert _one(engine, registry).need is Need.NOTHING


def test_an_image_that_was_built_has_to_be_built_again(engine):
    """No registry has it: it is said, and nobody is asked."""
    recorded = {"image": "bookreader_backend", "id": "sha256:" + "0" * 64}
    found = _one(engine, recorded)
    assert found.need is Need.BUILD
    with pytest.raises(SourceAbsentError, match="bookreader_backend of service redis was built") as raised:
        provide(engine, found)
    assert "docker compose build redis" in raised.value.hint


@pytest.mark.parametrize("what", ["digest", "registry"])
def test_one_that_no_registry_gives_is_named(engine, registry, what):
    """Neither a digest that is gone nor a registry that is away ends in a riddle."""
    digest = {
        "digest": registry["digest"].partition("@")[0] + "@sha256:" + "1" * 64,
        "registry": "127.0.0.1:9/bookreader/redis@sha256:" + "1" * 64,
    }[what]
    recorded = {**registry, "digest": digest, "id": "sha256:" + "1" * 64}
    with pytest.raises(SourceError, match="of service redis cannot be pulled") as raised:
        provide(engine, _one(engine, recorded), within=60)
    assert digest in raised.value.message
    assert "docker save" in raised.value.hint


def test_an_engine_that_is_away_is_not_an_image_that_is(tmp_path):
    """Nothing is said of images that nobody could look at."""
    with pytest.raises(SourceAbsentError, match="cannot be reached"):
        needed(Engine(f"unix://{tmp_path}/none"), {"redis": {"image": "redis:7", "id": "x"}})
