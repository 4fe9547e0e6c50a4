"""The files of a container, read by the host's path and through the engine's archive call."""

import os
from pathlib import PurePosixPath

import pytest

from bookreader_backup_assets.core.errors import SourceAbsentError, SourceError
from bookreader_backup_assets.runners import docker_tree
from bookreader_backup_assets.runners.docker import STORAGE, DockerRunner, Engine

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]
STORAGE_PATH = "/app/storage"


@pytest.fixture
def folder(tmp_path):
    """A tree with names, links and modes of every kind, on this machine."""
    root = os.fsencode(tmp_path / "storage")
    os.makedirs(root + b"/books/one")
    os.makedirs(root + b"/empty")
    for name in (b"books/one/a.epub", b"new\nline", b"not-utf8-\xff", b"y" * 255, "книга.fb2".encode()):
        with open(root + b"/" + name, "wb") as file:
            file.write(os.urandom(70_000))
    os.symlink("books/one/a.epub", root + b"/link")
    os.symlink(b"/\xff/absolute", root + b"/books/odd-link")
    os.link(root + b"/books/one/a.epub", root + b"/same")
    os.chmod(root + b"/link", 0o750)
    os.chown(root + b"/empty", 1001, 1002)
    os.mkfifo(root + b"/pipe")
    os.utime(root + b"/new\nline", ns=(1, 1_700_000_000_123_456_789))
    return tmp_path / "storage"


@pytest.fixture
def remote(monkeypatch):
    """As if the engine were elsewhere: its paths are not ours."""
    monkeypatch.setattr(Engine, "is_local", False)


def listing(tree):
    """Path to kind, mode, owner, time, target and content; hard links of one file are all files here."""
    contents, found = {}, {}
    for item in tree.items:
        content = b"".join(item.chunks()) if item.kind == "file" else b""
        contents[item.path] = content = contents[item.target] if item.kind == "hardlink" else content
        kind = "file" if item.kind == "hardlink" else item.kind
        target = item.target if item.kind == "symlink" else b""
        found[item.path] = (kind, item.mode, item.uid, item.gid, item.mtime_ns, target, content)
    return found


def runner_of(engine, name):
    """A runner of one container."""
    return DockerRunner(engine, STORAGE, configured=name)


def test_every_way_reads_the_same(start_container, engine, folder, monkeypatch):
    """Host's path, archive call, without a shell, stopped, never started: one and the same tree."""
    binds = [f"{folder}:{STORAGE_PATH}"]
    name = start_container("storage", "bookreader-test-ways", binds=binds)
    by_path = runner_of(engine, name).read_tree(STORAGE_PATH)
    expected = listing(by_path)
    assert expected[b"new\nline"][4] == 1_700_000_000_123_456_789  # nanoseconds: by the host's path
    expected = {path: (*item[:4], item[4] // 10**9 * 10**9, *item[5:]) for path, item in expected.items()}
    assert [problem.where for problem in by_path.problems] == ["pipe"]

    monkeypatch.setattr(Engine, "is_local", False)
    never = start_container("storage", "bookreader-test-never", binds=binds, running=False)
    for container, stop in ((name, False), (name, True), (never, False)):
        if stop:
            engine.api.stop(container, timeout=0)
        by_archive = runner_of(engine, container).read_tree(STORAGE_PATH + "/")
        assert listing(by_archive) == expected
        assert [problem.where for problem in by_archive.problems] == ["pipe"]


def test_a_volume_is_read_by_its_path(start_container, engine, folder):
    """A named volume lies on the engine's disk, and is read there with its nanoseconds."""
    volume = f"bookreader-test-{os.getpid()}"
    engine.api.create_volume(volume)
    name = start_container("busybox", "bookreader-test-volume", binds=[f"{volume}:/app", f"{folder}:/from"])
    try:
        runner = runner_of(engine, name)
        runner.run(["cp", "-a", "/from", STORAGE_PATH])
        found = listing(runner.read_tree(STORAGE_PATH))
        assert set(found) == set(listing(runner.read_tree("/from")))
        assert any(item[4] % 10**9 for item in found.values())
    finally:
        engine.api.remove_container(name, force=True)
        engine.api.remove_volume(volume)


def test_files_in_the_containers_own_layer_are_read(start_container, engine):
    """Files on no mount at all come through the archive call."""
    name = start_container("busybox", "bookreader-test-layer")
    runner = runner_of(engine, name)
    runner.run(
        ["sh", "-c", "mkdir -p /app/storage/a; echo hello > /app/storage/a/b; ln -s /app/storage /data"]
    )
    assert listing(runner.read_tree(STORAGE_PATH))[b"a/b"][6] == b"hello\n"
    assert set(listing(runner.read_tree("/data"))) == {b".", b"a", b"a/b"}


def test_a_mount_below_is_read_too(start_container, engine, folder, tmp_path):
    """Another mount inside the folder is read, although the host's folder is empty there."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "inner").write_bytes(b"inside")
    binds = [f"{folder}:{STORAGE_PATH}", f"{tmp_path / 'other'}:{STORAGE_PATH}/books/one"]
    name = start_container("storage", "bookreader-test-nested", binds=binds)
    found = listing(runner_of(engine, name).read_tree(STORAGE_PATH))
    assert found[b"books/one/inner"][6] == b"inside"
    assert b"books/one/a.epub" not in found  # hidden by the mount, as the service sees it


def test_a_tmpfs_below_is_named(start_container, engine, folder):
    """What lies in memory inside the folder cannot be had, and is named."""
    name = start_container(
        "storage",
        "bookreader-test-memory",
        binds=[f"{folder}:{STORAGE_PATH}"],
        tmpfs={f"{STORAGE_PATH}/empty": ""},
    )
    tree = runner_of(engine, name).read_tree(STORAGE_PATH)
    assert b"books/one/a.epub" in listing(tree)
    assert [problem.where for problem in tree.problems if "tmpfs" in problem.what] == ["empty"]


def test_a_tmpfs_is_refused(start_container, engine):
    """A storage folder in memory is an error: an empty archive of it would be a lie."""
    name = start_container("busybox", "bookreader-test-tmpfs", tmpfs={"/app": ""})
    runner = runner_of(engine, name)
    runner.run(["mkdir", STORAGE_PATH])
    with pytest.raises((SourceError, SourceAbsentError)):
        runner.read_tree("/app")
    with pytest.raises((SourceError, SourceAbsentError)):
        runner.read_tree(STORAGE_PATH)


def test_a_path_that_is_no_folder_is_told(start_container, engine):
    """A missing path and a file are told apart, and the setting is named."""
    runner = runner_of(engine, start_container("busybox", "bookreader-test-paths"))
    with pytest.raises(SourceAbsentError, match="has no /app/storage") as caught:
        runner.read_tree(STORAGE_PATH)
    assert "BACKUP_STORAGE_PATH" in caught.value.hint
    with pytest.raises(SourceError, match="is not a folder"):
        runner.read_tree("/bin/busybox")


@pytest.mark.usefixtures("remote")
@pytest.mark.parametrize("read", [True, False])
def test_a_file_that_shrinks_is_no_quiet_loss(start_container, engine, tmp_path, read):
    """The engine drops everything after a file that shrank, without a word: that is an error here."""
    (tmp_path / "a").write_bytes(bytes(50_000_000))
    (tmp_path / "b").write_bytes(b"after it")
    name = start_container("storage", f"bookreader-test-shrink-{read}", binds=[f"{tmp_path}:{STORAGE_PATH}"])
    items = runner_of(engine, name).read_tree(STORAGE_PATH).items
    assert next(items).path == b"."
    item = next(items)
    assert item.path == b"a"
    os.truncate(tmp_path / "a", 20_000_000)
    with pytest.raises(SourceError, match="ended early"):
        for _ in item.chunks() if read else items:
            pass


@pytest.mark.usefixtures("remote")
@pytest.mark.parametrize("kept", [-1024, -512])
def test_an_archive_cut_at_a_boundary_is_no_quiet_loss(engine, start_container, folder, monkeypatch, kept):
    """An archive without its last blocks is not whole, although every file in it is."""
    name = start_container("storage", f"bookreader-test-cut{kept}", binds=[f"{folder}:{STORAGE_PATH}"])
    runner = runner_of(engine, name)
    whole = b"".join(engine.api.get_archive(name, STORAGE_PATH)[0])
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512 + 1024 + kept

    class Cut(docker_tree._Reader):
        def __init__(self, chunks):
            super().__init__(iter([b"".join(chunks)[:end]]))

    monkeypatch.setattr(docker_tree, "_Reader", Cut)
    with pytest.raises(SourceError, match="ended early"):
        listing(runner.read_tree(STORAGE_PATH))


def test_another_machines_path_is_not_trusted(tmp_path):
    """A folder of the same name that is not the one the engine speaks of is not read in its place."""
    os.utime(tmp_path, ns=(1, 1_700_000_000_123_456_789))
    same = {"mtime": "2023-11-14T22:13:20.123456789Z"}
    assert docker_tree._is_the_same(str(tmp_path), same)
    assert docker_tree._is_the_same(str(tmp_path), {"mtime": "2023-11-15T01:13:20.123456789+03:00"})
    assert not docker_tree._is_the_same(str(tmp_path), {"mtime": "2023-11-14T22:13:20Z"})
    assert not docker_tree._is_the_same(str(tmp_path / "absent"), same)


def test_a_link_on_the_way_is_not_followed_on_the_host(tmp_path):
    """A link inside the mount points elsewhere in the container than here, so the host's path is not used."""
    (tmp_path / "link").symlink_to("/etc")
    (tmp_path / "real").mkdir()
    mounts = {PurePosixPath("/app"): str(tmp_path)}
    assert docker_tree._host_path(mounts, PurePosixPath("/app/link")) is None
    assert docker_tree._host_path(mounts, PurePosixPath("/app/real")) == str(tmp_path / "real")
    assert docker_tree._host_path(mounts, PurePosixPath("/app")) is not None
    assert docker_tree._host_path(mounts, PurePosixPath("/elsewhere")) is None


def test_a_folder_that_only_the_container_has_is_not_told(
    engine, start_container, folder, tmp_path, monkeypatch
):
    """Not a path of the image, nor one through a link, nor any of an engine that is elsewhere."""
    name = start_container("storage", "bookreader-test-told", binds=[f"{folder}:{STORAGE_PATH}"])
    runner = runner_of(engine, name)
    (folder / "way").symlink_to("/etc")
    assert runner.local_folder(STORAGE_PATH) == folder
    assert runner.local_folder("/etc") is None
    assert runner.local_folder(f"{STORAGE_PATH}/way") is None
    os.rename(folder, tmp_path / "moved")
    assert runner.local_folder(STORAGE_PATH) == folder  # where it has to come back
    monkeypatch.setattr(Engine, "is_local", False)
    assert runner.local_folder(STORAGE_PATH) is None
