"""The code is lost or damaged: its repository comes back compared, work in it stays, and undo goes back."""

import os
import shutil
import signal

import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.journal import journals, unfinished
from bookreader_backup_assets.actions.restore import plan, restore
from bookreader_backup_assets.actions.undo import accept, finish, undo
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.core.errors import DamagedError, RefusedError, SourceError
from bookreader_backup_assets.core.restore_plan import Options
from tests.fixtures.code import commit, git, installed, repository
from tests.fixtures.trees import look

KEPT = b".bookreader-restore-"
URL = "https://token@example.org/bookreader.git"


@pytest.fixture
def root(tmp_path):
    """A repository as BookReader has it: with a remote, and files that are not tracked."""
    folder = repository(tmp_path / "bookreader")
    git(folder, "remote", "add", "origin", URL)
    git(folder, "update-ref", "refs/remotes/origin/main", "older")
    git(folder, "branch", "--set-upstream-to=origin/main")
    (folder / ".env").write_text("SECRET=1\n")
    return folder


@pytest.fixture
def there(tmp_path, root):
    """An installation that has captured and verified it."""
    made = installed(root, tmp_path / "vault", tmp_path)
    component = made.component("code/bundle")
    entry, _ = capture(made, component, "2025-10-24")
    assert all(outcome.passed for outcome in verify(made, component, entry).checks)
    return made


def history(folder):
    """Every ref, HEAD and its branch, and all objects that they reach."""
    return (
        git(folder, "for-each-ref", "--format=%(refname) %(objectname)"),
        git(folder, "rev-parse", "HEAD", "--symbolic-full-name", "HEAD"),
        git(folder, "rev-list", "--objects", "--all", "HEAD"),
    )


def files(folder):
    """Kind, mode, owner and content of what is in a folder, but for repositories and what restores keep."""
    found = look(os.fsencode(folder)).items()
    inside = {p: (*w[:3], *w[4:]) for p, w in found if not p.startswith((b".git/", KEPT))}
    return {path: what for path, what in inside.items() if path not in (b".", b".git")}


def everything(folder):
    """All of a folder byte by byte, its repository too, but for what restores keep, and times."""
    found = look(os.fsencode(folder)).items() if folder.exists() else ()
    return {p: (*w[:3], *w[4:]) for p, w in found if not p.startswith(KEPT) and p != b"."}


def restored(there, root, **options):
    """Restore, expect it to be good, and return the report."""
    report = restore(there, "code", options=Options(**options), confirm=str(root))
    assert report.good, report
    return report


def spoil_head(root):
    """Have a repository that git does not take for one."""
    (root / ".git" / "HEAD").write_bytes(b"\0" * 40)


def spoil_objects(root):
    """Lose every object."""
    shutil.rmtree(root / ".git" / "objects")


def spoil_refs(root):
    """Lose a branch, move another, delete tags, and commit nonsense."""
    git(root, "branch", "--delete", "--force", "older")
    git(root, "tag", "--delete", "v1")
    commit(root, "nonsense", {"nonsense": "x\n"})
    git(root, "reset", "--quiet", "--hard", "HEAD~2")


DAMAGE = {
    "no repository": lambda root: shutil.rmtree(root / ".git"),
    "HEAD": spoil_head,
    "objects": spoil_objects,
    "refs": spoil_refs,
    "detached": lambda root: git(root, "checkout", "--quiet", "--detach", "older"),
    "a file": lambda root: (shutil.rmtree(root / ".git"), (root / ".git").write_text("gitdir: /nowhere\n")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_the_repository_comes_back_and_goes_again(there, root, damage):
    """Every ref and object, and files that are missing; other files stay; undo brings back the old one."""
    good = history(root), files(root)
    damage(root)
    (root / "README.md").unlink()
    shutil.rmtree(root / "backend", ignore_errors=True)
    before = everything(root)
    report = restored(there, root)
    assert history(root) == good[0]
    brought = {p for p, w in files(root).items() if good[1].get(p) != w}
    assert brought <= {b"nonsense"}
    assert (root / ".env").read_text() == "SECRET=1\n"
    git(root, "fsck", "--full", "--strict")
    undo(there, report.id, confirm=str(root))
    assert everything(root) == before


def test_work_in_the_folder_is_named_and_left(there, root):
    """Files that differ from the deployed commit are somebody's: the report has them, git sees them."""
    (root / "README.md").write_text("changed on the server\n")
    (root / "frontend" / "index.html").unlink()
    shutil.rmtree(root / ".git")
    report = restored(there, root)
    (swapped,) = [outcome for outcome in report.outcomes if outcome.check == "swapped"]
    assert "README.md has other content" in swapped.message
    assert swapped.measured["different"] == 1
    assert (root / "README.md").read_text() == "changed on the server\n"
    assert git(root, "status", "--porcelain") == " M README.md\n?? .env"
    accept(there, report.id, confirm=str(root))
    assert [name for name in os.listdir(os.fsencode(root)) if name.startswith(KEPT)] == []


def test_the_whole_folder_is_gone(there, root):
    """It comes back with every tracked file; what was not tracked is another component's."""
    good = history(root), files(root)
    shutil.rmtree(root)
    restored(there, root)
    assert history(root) == good[0]
    assert files(root) == {path: what for path, what in good[1].items() if path != b".env"}
    assert git(root, "status", "--porcelain") == ""


def test_into_a_folder_to_look_at(there, root, tmp_path):
    """Nothing live is touched; a folder with anything in it is refused; undo takes it away again."""
    git(root, "checkout", "--quiet", "older")
    before = everything(root)
    report = restored(there, root, into=str(tmp_path / "look"))
    assert everything(root) == before
    assert git(tmp_path / "look", "log", "-1", "--format=%s %D") == "Serve the book\u2019s cover HEAD -> main"
    assert git(tmp_path / "look", "status", "--porcelain") == ""
    with pytest.raises(RefusedError, match="is not empty"):
        restore(there, "code", options=Options(into=str(tmp_path / "look")), confirm="")
    undo(there, report.id, confirm=str(tmp_path / "look"))
    assert everything(tmp_path / "look") == {}


def test_remotes_are_kept_and_nothing_else_of_the_old_settings(there, root):
    """The next `git pull` works as before; no program that the old repository named is named again."""
    git(root, "config", "core.fsmonitor", "/bin/false")
    git(root, "config", "remote.origin.uploadpack", "/bin/false")
    spoil_objects(root)
    report = restored(there, root)
    settings = git(root, "config", "--local", "--list").splitlines()
    assert f"remote.origin.url={URL}" in settings
    assert "branch.main.merge=refs/heads/main" in settings
    assert not [line for line in settings if "fsmonitor" in line or "uploadpack" in line]
    assert "token" not in str(report)
    assert "upstream" not in git(root, "status")


def test_its_plan_says_what_is_there_and_touches_nothing(there, root):
    """Which commit is there, and which comes."""
    deployed = git(root, "rev-parse", "HEAD")
    spoil_refs(root)
    now = git(root, "rev-parse", "HEAD")
    before = everything(root)
    planned = plan(there, "code")
    assert now[:12] in planned.preview.replaces
    assert deployed[:12] in str(planned.preview.steps)
    assert planned.target == str(root)
    assert planned.safety == "what is there is kept beside it"
    with pytest.raises(RefusedError):
        restore(there, "code", confirm="")
    spoil_head(root)
    assert "cannot be read" in plan(there, "code").preview.replaces
    shutil.rmtree(root / ".git")
    assert plan(there, "code").preview.replaces == f"nothing: {root} has no repository"
    assert {p for p in before if not p.startswith(b".git")} == set(everything(root))


def test_a_link_leads_nothing_out_of_the_folder(there, root, tmp_path):
    """A folder that has become a link is left, and nothing is written where it leads."""
    (tmp_path / "elsewhere").mkdir()
    shutil.rmtree(root / "backend")
    (root / "backend").symlink_to(tmp_path / "elsewhere")
    report = restored(there, root)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert "backend/app/main.py lies behind a link" in str(report.outcomes)


def test_a_damaged_bundle_touches_nothing(there, root):
    """Whatever its checks said before: what lies in the vault now is not restored."""
    (entry,) = [one for one in there.vault.list("code/") if one.name.endswith(".bundle")]
    path = there.vault.local_path(entry.name)
    data = bytearray(path.read_bytes())
    data[-30] ^= 1
    path.write_bytes(data)
    shutil.rmtree(root / "backend")
    before = everything(root)
    with pytest.raises(DamagedError) as refused:
        restore(there, "code", confirm=str(root))
    assert "bookreader-backup list" in refused.value.hint
    assert everything(root) == before
    assert os.listdir(root) == [name for name in os.listdir(root) if not name.startswith(".bookreader")]


@pytest.mark.parametrize("lost", ["refs/heads/older", "HEAD", "an object"])
def test_what_is_not_equal_beside_is_never_swapped_in(there, root, lost, monkeypatch):
    """A ref that did not come back as it was captured stops the restore before anything is touched."""
    from bookreader_backup_assets.components import code_restore

    unbundled = code_restore.unbundled

    def wrongly(*given):
        made = unbundled(*given)
        if lost == "HEAD":
            made.run("update-ref", "--no-deref", "HEAD", "refs/heads/older")
        elif lost == "an object":
            (pack,) = made.folder.glob("objects/pack/*.pack")
            made.run("unpack-objects", "-q", stdin=[pack.rename(made.folder / "pack").read_bytes()])
            name = made.ask("rev-parse", "older^{tree}")
            (made.folder / "objects" / name[:2] / name[2:]).unlink()
        else:
            made.run("update-ref", "-d", lost)
        return made

    monkeypatch.setattr(code_restore, "unbundled", wrongly)
    before = everything(root)
    with pytest.raises(DamagedError, match=r"not as captured|not whole"):
        restore(there, "code", confirm=str(root))
    assert everything(root) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_comes_back_belongs_to_the_owner_of_the_folder(there, root):
    """Not to root, who restores: the one who deploys works on with it."""
    for path in [root, *root.rglob("*")]:
        os.chown(path, 65534, 65534, follow_symlinks=False)
    shutil.rmtree(root / "backend")
    restored(there, root)
    owners = {p.lstat().st_uid for p in root.rglob("*") if KEPT.decode() not in str(p)}
    assert owners == {65534}
    assert (root / "deploy.sh").stat().st_mode & 0o777 == 0o755
    assert (root / "backend" / "app" / "main.py").stat().st_mode & 0o777 == 0o644


def test_an_undo_loses_no_commit_made_since(there, root):
    """The repository that was restored is moved aside, with what was done in it, until it is accepted."""
    spoil_objects(root)
    report = restored(there, root)
    since = commit(root, "made since", {"README.md": "since\n"})
    undo(there, report.id, confirm=str(root))
    (kept,) = root.glob(f"{KEPT.decode()}*")
    assert git(kept / "undone", "rev-parse", "HEAD") == since
    with pytest.raises(RefusedError, match="is undone already"):
        undo(there, report.id, confirm=str(root))


def test_a_place_that_takes_no_file(there, tmp_path, root):
    """A file where the folder was: refused or told, and nothing is changed."""
    shutil.rmtree(root)
    root.write_text("a file")
    with pytest.raises((RefusedError, SourceError)):
        restore(there, "code", confirm=str(root))
    assert root.read_text() == "a file"


def killed(there, root, at):
    """Restore in a process that kills itself before its `at`-th change; return how many it made, or None."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def counted(function):
            def call(*args, **given):
                nonlocal count
                count += 1
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **given)

            return call

        for name in ("rename", "mkdir", "unlink", "link", "chown", "rmdir"):
            setattr(os, name, counted(getattr(os, name)))
        try:
            restored(there, root)
            os.write(write, str(count).encode())
        finally:
            os._exit(1)
    os.close(write)
    said = os.read(read, 100)
    os.close(read)
    _, status = os.waitpid(child, 0)
    assert said or os.WIFSIGNALED(status)
    return int(said) if said else None


def test_killed_at_any_change(there, root):
    """Killed before any change that a restore makes: the same command goes on, or undo goes back."""
    good = history(root)
    spoil_refs(root)
    shutil.rmtree(root / ".git" / "refs")
    (root / "README.md").unlink()
    before = everything(root)
    for _ in range(2):  # the first makes folders in the vault
        changes = killed(there, root, -1)
        undo(there, journals(there)[-1].id, confirm=str(root))
        assert everything(root) == before
    for at in (1, changes // 3, changes // 2, *range(changes - 9, changes + 1)):
        assert killed(there, root, at) is None
        if at % 2:
            for journal in unfinished(there):
                undo(there, journal.id, confirm=str(root))
            assert everything(root) == before, at
            continue
        report = restored(there, root)
        assert history(root) == good, at
        undo(there, report.id, confirm=str(root))
        assert everything(root) == before, at
    assert unfinished(there) == []


def test_finish_leaves_one_or_the_other(there, root):
    """A killed restore that is finished leaves the repository from before, or the set's."""
    good = history(root)
    spoil_refs(root)
    before = history(root)
    changes = killed(there, root, -1)
    undo(there, journals(there)[-1].id, confirm=str(root))
    for at in (changes // 2, changes - 3):
        assert killed(there, root, at) is None
        finish(there)
        assert history(root) in (before, good)
        assert unfinished(there) == []
