"""The code's bundle: all refs, whole or not at all, made a repository of again; and nothing is run."""

import os
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.seal import seal
from bookreader_backup_assets.actions.verify import verify
from bookreader_backup_assets.components.code_git import Git
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.errors import BackupError, SourceAbsentError, SourceError, SpaceError
from tests.fixtures.code import commit, git, installed, repository

DAY = "2025-10-24"
GOOD = {"complete": True, "restorable": True, "not_empty": True, "sha256": True}


@pytest.fixture
def root(tmp_path):
    """A repository as BookReader has it."""
    return repository(tmp_path / "bookreader")


@pytest.fixture
def there(tmp_path, root):
    """An installation that captures it."""
    (tmp_path / "scratch").mkdir()
    return installed(root, tmp_path / "vault", tmp_path / "scratch")


def captured(there):
    """Capture; return the entry."""
    return capture(there, there.component("code/bundle"), DAY)[0]


def checked(there, entry):
    """Return what the checks of an artifact find: whether each passed."""
    return {o.check: o.passed for o in verify(there, there.component("code/bundle"), entry).checks}


def stored(there):
    """Return the names of the artifacts in the vault."""
    return [one.name for one in there.vault.list("code/")]


def held(folder):
    """Return every ref of a repository, HEAD, and all objects that they reach, asked of git itself."""
    return (
        git(folder, "for-each-ref", "--format=%(refname) %(objectname)"),
        git(folder, "rev-parse", "HEAD"),
        sorted(git(folder, "rev-list", "--objects", "--all", "HEAD").splitlines()),
    )


def made_artifact(there, entry, data):
    """Put other bytes into the vault as if they had been captured; return their entry."""
    other = replace(entry, name=entry.name.replace("code_", "code_0"), size=len(data))
    there.vault.put(other.name, [data])
    return other


def bundle_of(folder, *what):
    """Return the bytes of a bundle that git makes."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    argv = ["git", "-C", str(folder), "bundle", "create", "--quiet", "-", *what]
    return subprocess.run(argv, env=clean, capture_output=True, timeout=60, check=True).stdout


def test_all_of_it_comes_back_with_git_clone(there, root, tmp_path):
    """The artifact is an ordinary bundle: `git clone` gives every ref and object, and the files."""
    git(root, "notes", "add", "-m", "a note")
    (root / "deploy.sh").write_text("#!/bin/sh\n# not yet committed\n")
    git(root, "stash")
    entry = captured(there)
    assert checked(there, entry) == GOOD
    bundle = there.vault.local_path(entry.name)
    git(tmp_path, "clone", "--quiet", "--mirror", str(bundle), "mirror")
    assert held(tmp_path / "mirror") == held(root)
    git(tmp_path, "clone", "--quiet", str(bundle), "clone")
    for name in ("backend/app/main.py", "README.md", "latest"):
        assert (tmp_path / "clone" / name).read_bytes() == (root / name).read_bytes()
    assert (tmp_path / "clone" / "deploy.sh").stat().st_mode & 0o111
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_manifest_names_the_deployed_commit(there, root):
    """In JSON and in text: what ran that day is known without unpacking anything."""
    entry = captured(there)
    verify(there, there.component("code/bundle"), entry)
    manifest = seal(there, DAY)
    text = b"".join(there.vault.open(manifest.companion("text").name)).decode()
    deployed = git(root, "rev-parse", "HEAD")
    assert f"Code: {deployed} Serve the book\u2019s cover\n" in text
    assert deployed.encode() in b"".join(there.vault.open(manifest.name))
    assert entry.fingerprint == {
        "kind": "refs",
        "commit": deployed,
        "branch": "main",
        "subject": "Serve the book\u2019s cover",
        "committed_at": "2025-10-20T12:00:00+00:00",
        "files": 6,
        "bytes": sum(os.lstat(root / n).st_size for n in git(root, "ls-files").splitlines()),
        "dirty": 0,
        "refs": {"HEAD": deployed, **Git(root / ".git").refs()},
    }
    assert set(entry.fingerprint["refs"]) == {"HEAD", "refs/heads/main", "refs/heads/older", "refs/tags/v1"}


def test_only_a_change_is_bundled_again(there, root):
    """The same refs and work tree: the set refers to the artifact that exists. Each change is a new one."""
    first = captured(there)
    assert checked(there, first) == GOOD
    assert captured(there) == first
    changes = [
        lambda: git(root, "tag", "v2"),
        lambda: git(root, "branch", "--delete", "--force", "older"),
        lambda: git(root, "checkout", "--quiet", "--detach"),
        lambda: commit(root, "more", {"README.md": "more\n"}),
        lambda: (root / "README.md").write_text("changed on the server\n"),
    ]
    for change in changes:
        change()
        entry = captured(there)
        assert entry != first
        assert checked(there, entry) == GOOD
        assert captured(there) == entry
        first = entry


def test_uncommitted_work_is_named(there, root):
    """No bundle has it: each tracked file that differs is a problem of the artifact, and they are counted."""
    (root / "README.md").write_text("changed on the server\n")
    (root / "deploy.sh").chmod(0o644)
    (root / "frontend" / "index.html").unlink()
    (root / "untracked").touch()
    entry = captured(there)
    assert {problem.where: problem.what for problem in entry.problems} == {
        "README.md": "has other content, other than in the deployed commit: a bundle has none of that",
        "deploy.sh": "has another mode, other than in the deployed commit: a bundle has none of that",
        "frontend/index.html": "is not there, and is in the deployed commit",
    }
    assert entry.fingerprint["dirty"] == 3
    shutil.rmtree(root / "backend")
    commit(root, "many", {f"many/{n}": "x" for n in range(30)})
    shutil.rmtree(root / "many")
    entry = captured(there)
    assert entry.fingerprint["dirty"] == 35
    assert len(entry.problems) == 21
    assert "15 more" in entry.problems[-1].what


def test_nothing_that_the_repository_names_is_run(there, root, tmp_path):
    """Hooks, monitors, filters, pagers, signing, fetching: root's backup executes nothing of somebody's."""
    ran = tmp_path / "ran"
    evil = tmp_path / "evil"
    evil.write_text(f'#!/bin/sh\necho "$0 $*" >> {ran}\nexit 1\n')
    evil.chmod(0o755)
    (root / ".git" / "hooks").mkdir(exist_ok=True)
    for hook in ("post-checkout", "reference-transaction", "post-index-change", "pre-auto-gc"):
        shutil.copy(evil, root / ".git" / "hooks" / hook)
    git(root, "config", "core.hooksPath", str(tmp_path))
    commit(root, "attributes", {".gitattributes": "* filter=evil diff=evil\n"})
    for name in (
        *("core.fsmonitor", "core.sshCommand", "core.gitProxy", "core.pager", "core.editor", "core.askPass"),
        *("core.alternateRefsCommand", "credential.helper", "diff.external", "diff.evil.command"),
        *("diff.evil.textconv", "filter.evil.clean", "filter.evil.smudge", "filter.evil.process"),
        *("gpg.program", "pager.bundle", "pager.rev-list", "alias.bundle", "uploadpack.packObjectsHook"),
    ):
        git(root, "config", name, str(evil))
    git(root, "config", "log.showSignature", "true")
    git(root, "config", "filter.evil.required", "true")
    git(root, "config", "--unset", "core.hooksPath")
    (root / "README.md").write_text("touched\n")
    entry = captured(there)
    assert checked(there, entry) == GOOD
    assert there.component("code/bundle").unchanged_since(entry)
    assert entry.fingerprint["dirty"] == 1
    assert not ran.exists(), ran.read_text()
    with pytest.raises(subprocess.CalledProcessError):  # the trap is one
        git(root, "status")
    assert ran.exists()


def test_an_absent_object_is_never_fetched(there, root, tmp_path):
    """A partial clone's remote may be a program. Nothing is stored, and what to do is said."""
    git(root, "config", "uploadpack.allowFilter", "true")
    partial = tmp_path / "partial"
    git(tmp_path, "clone", "--quiet", "--filter=blob:none", "--no-checkout", f"file://{root}", str(partial))
    trap = f"touch {tmp_path}/ran; git-upload-pack"
    git(partial, "config", "remote.origin.uploadpack", trap)
    there = installed(partial, tmp_path / "vault", tmp_path / "scratch")
    with pytest.raises(BackupError) as refused:
        captured(there)
    assert "--refetch" in refused.value.hint
    assert stored(there) == []
    assert not (tmp_path / "ran").exists()
    git(partial, "config", "remote.origin.uploadpack", "git-upload-pack")
    git(partial, "fetch", "--quiet", "--refetch", "--no-filter")
    assert checked(there, captured(there)) == GOOD


def test_what_a_hook_hands_down_is_forgotten(there, root, tmp_path, monkeypatch):
    """A deploy hook that makes a backup has GIT_DIR and others in its environment; the reader's own too."""
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_WORK_TREE", "GIT_NAMESPACE"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'core.bare'='nonsense'")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".gitconfig").write_text("[broken")
    assert checked(there, captured(there)) == GOOD


def test_without_git(there, tmp_path, monkeypatch):
    """Named, with what to install; a check that cannot be made is inconclusive, and never a pass."""
    entry = captured(there)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceAbsentError) as absent:
        captured(there)
    assert "git is not on this machine" in absent.value.message
    outcomes = {o.check: o.verdict for o in verify(there, there.component("code/bundle"), entry).checks}
    assert outcomes["complete"] == outcomes["restorable"] == Verdict.INCONCLUSIVE


def broken_git(root):
    """Lose what makes a repository of it."""
    (root / ".git" / "HEAD").unlink()


def no_commit(root):
    """Begin anew, without a commit."""
    shutil.rmtree(root / ".git")
    git(root, "init", "--quiet")


def shallow(root):
    """Have it cloned without its past."""
    root.rename(root.with_name("whole"))
    git(root.parent, "clone", "--quiet", "--depth=1", f"file://{root.with_name('whole')}", root.name)


@pytest.mark.parametrize(
    ("damage", "said", "hint"),
    [
        (lambda root: shutil.rmtree(root / ".git"), "is no git repository", "BACKUP_CODE_PATH"),
        (shutil.rmtree, "is no git repository", "take [code] out of the plan"),
        (broken_git, "cannot be read", "restore code"),
        (no_commit, "has no commit checked out", "commit"),
        (shallow, "is shallow", "fetch --unshallow"),
    ],
    ids=["no repository", "no folder", "damaged", "no commit", "shallow"],
)
def test_what_cannot_be_bundled_says_what_to_do(there, root, damage, said, hint):
    """Nothing is stored, probing says the same, and the set's manifest has the reason."""
    damage(root)
    for ask in (lambda: captured(there), there.component("code/bundle").probe):
        with pytest.raises(SourceError) as refused:
            ask()
        assert said in refused.value.message
        assert hint in refused.value.hint
    assert stored(there) == []
    text = b"".join(there.vault.open(seal(there, DAY).companion("text").name)).decode()
    assert f"code/bundle: MISSING: {refused.value.message}" in text


def test_a_folder_of_a_repository_names_its_top(there, root, tmp_path):
    """Where the compose file lies deeper, the hint has the path to set."""
    with pytest.raises(SourceAbsentError) as refused:
        captured(installed(root / "backend", tmp_path / "vault", tmp_path / "scratch"))
    assert f"BACKUP_CODE_PATH to {root}," in refused.value.hint


def test_a_shallow_one_works_once_the_rest_is_fetched(there, root):
    """The hint is true."""
    shallow(root)
    with pytest.raises(SourceError):
        captured(there)
    git(root, "fetch", "--quiet", "--unshallow")
    assert checked(there, captured(there)) == GOOD


def objects(root):
    """Return the loose objects of a repository: each one's file, by its kind."""
    found = {}
    for path in (root / ".git" / "objects").glob("??/*"):
        found.setdefault(git(root, "cat-file", "-t", path.parent.name + path.name), []).append(path)
    return found


@pytest.mark.parametrize("kind", ["commit", "tree", "blob"])
@pytest.mark.parametrize("missing", [True, False])
def test_a_broken_loose_object_is_never_half_a_bundle(there, root, kind, missing):
    """Missing or corrupted: refused, with how to find it; no file of it stays in the vault."""
    path = objects(root)[kind][0]
    if missing:
        path.unlink()
    else:
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-8] + b"damaged!")
    with pytest.raises(BackupError) as refused:
        captured(there)
    assert "fsck" in refused.value.hint
    assert stored(there) == []


@pytest.mark.parametrize("what", ["HEAD", "HEAD^{tree}", "HEAD:backend", "HEAD:README.md"])
def test_what_is_broken_since_is_not_unchanged(there, root, what):
    """The deployed commit has lost a part since the last bundle: that is said, and the last bundle stays."""
    good = captured(there)
    assert checked(there, good) == GOOD
    names = stored(there)
    name = git(root, "rev-parse", what)
    (root / ".git" / "objects" / name[:2] / name[2:]).unlink()
    with pytest.raises(BackupError) as refused:
        captured(there)
    assert refused.value.hint
    assert stored(there) == names


def test_a_broken_pack_is_refused_or_found(there, root):
    """A flipped byte anywhere in a pack: no bundle, or a bundle that fails its check; never a good one."""
    git(root, "repack", "-adq")
    (pack,) = (root / ".git" / "objects" / "pack").glob("*.pack")
    pack.chmod(0o644)
    whole = pack.read_bytes()
    verdicts = []
    for at in range(12, len(whole) - 20, max(1, len(whole) // 6)):
        pack.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        try:
            entry = captured(there)
        except BackupError:
            verdicts.append("refused")
        else:
            verdicts.append("found" if not checked(there, entry)["restorable"] else "missed")
    assert len(verdicts) >= 5
    assert "missed" not in verdicts, verdicts


def test_a_detached_head_and_odd_names(there, root):
    """Branches with quotes, spaces' cousins, other alphabets and no UTF-8 at all; HEAD on none of them."""
    for name in ('o"d$(d);x', "-x", "\u0432\u0435\u0442\u043a\u0430", "b\udcff", "a/b/c.d", "'", "HEAD"):
        git(root, "update-ref", f"refs/heads/{name}", "HEAD")
    git(root, "checkout", "--quiet", "--detach")
    only = commit(root, "on no branch", {"README.md": "hotfix\n"})
    git(root, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/heads/older")
    git(root, "symbolic-ref", "refs/remotes/origin/gone", "refs/heads/gone")
    entry = captured(there)
    assert checked(there, entry) == GOOD
    assert entry.fingerprint["branch"] == ""
    assert entry.fingerprint["commit"] == entry.fingerprint["refs"]["HEAD"] == only
    assert {"refs/heads/b\udcff", "refs/heads/-x", "refs/heads/HEAD"} < set(entry.fingerprint["refs"])
    assert captured(there) == entry


def test_worktrees_and_submodules_are_repositories_too(root, tmp_path):
    """Their `.git` is a file that leads elsewhere; a submodule is named, since a bundle has none of it."""
    git(root, "worktree", "add", "--quiet", "--detach", str(tmp_path / "worktree"))
    hotfix = commit(tmp_path / "worktree", "in the worktree", {"README.md": "hotfix\n"})
    there = installed(tmp_path / "worktree", tmp_path / "vault1", tmp_path)
    entry = captured(there)
    assert checked(there, entry) == GOOD
    assert entry.fingerprint["commit"] == hotfix
    outer = repository(tmp_path / "outer")
    git(outer, "submodule", "--quiet", "add", str(root), "module")
    commit(outer, "with a module", {})
    there = installed(outer, tmp_path / "vault2", tmp_path)
    entry = captured(there)
    assert checked(there, entry) == GOOD
    assert [(p.where, p.what) for p in entry.problems] == [("module", "a submodule: a repository of its own")]
    inner = installed(outer / "module", tmp_path / "vault3", tmp_path)
    assert checked(inner, captured(inner)) == GOOD
    assert (outer / "module" / ".git").is_file()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_repository_of_another_user(there, root):
    """Git itself would refuse it; a backup run by root reads it, and leaves nothing in it."""
    for path in [root, *root.rglob("*")]:
        os.chown(path, 65534, 65534, follow_symlinks=False)
    before = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
    assert checked(there, captured(there)) == GOOD
    assert {path: path.lstat().st_mtime_ns for path in root.rglob("*")} == before
    assert {path.lstat().st_uid for path in root.rglob("*")} == {65534}


def test_sha256_repositories(there, root):
    """The other kind of object names."""
    shutil.rmtree(root / ".git")
    git(root, "init", "--quiet", "--object-format=sha256", "--initial-branch=main")
    commit(root, "first", {"README.md": "x\n"})
    entry = captured(there)
    assert checked(there, entry) == GOOD
    assert len(entry.fingerprint["commit"]) == 64


def test_a_branch_that_moves_meanwhile(there, root):
    """What the bundle says is recorded, whatever was there before its first byte or after it."""
    component = there.component("code/bundle")
    old = git(root, "rev-parse", "HEAD")
    with component.capture() as source:
        assert next(source.chunks).startswith(f"# v2 git bundle\n{old} HEAD\n".encode())
        new = commit(root, "pushed meanwhile", {"README.md": "new\n"})
        assert b"".join(source.chunks).startswith(b"PACK")
        facts = source.facts()
    assert facts.fingerprint["commit"] == facts.fingerprint["refs"]["refs/heads/main"] == old != new
    assert [problem.where for problem in facts.problems] == ["README.md"]
    entry = captured(there)
    assert checked(there, entry) == GOOD
    assert entry.fingerprint["commit"] == new


@pytest.mark.parametrize("shown", ["grafts", "another commit"])
def test_what_only_seems_so_is_not_believed(there, root, tmp_path, shown):
    """Grafts that cut a history, and commits shown in the place of others: the real ones are bundled."""
    deployed = git(root, "rev-parse", "HEAD")
    git(root, "branch", "--delete", "--force", "older")
    git(root, "tag", "--delete", "v1")
    if shown == "grafts":
        (root / ".git" / "info").mkdir(exist_ok=True)
        (root / ".git" / "info" / "grafts").write_text(f"{deployed}\n")
    else:
        git(root, "replace", "HEAD", "HEAD~1")
    entry = captured(there)
    assert checked(there, entry) == GOOD
    assert (entry.fingerprint["files"], entry.fingerprint["dirty"]) == (6, 0)
    git(tmp_path, "clone", "--quiet", str(there.vault.local_path(entry.name)), "clone")
    assert git(tmp_path / "clone", "rev-list", "--count", deployed) == "2"


def test_a_history_with_old_oddities_is_no_damage(there, root):
    """What programs of long ago wrote is whole, if it is all there: no check may be red for ever."""
    tree = git(root, "rev-parse", "HEAD^{tree}")
    odd = f"tree {tree}\nauthor A<a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nodd\n"
    name = git(root, "hash-object", "-t", "commit", "-w", "--stdin", "--literally", stdin=odd)
    git(root, "update-ref", "refs/heads/odd", name)
    with pytest.raises(subprocess.CalledProcessError):
        git(root, "fsck", "--full")
    assert checked(there, captured(there)) == GOOD


@pytest.mark.parametrize(
    ("make", "red"),
    [
        (lambda root, _: bundle_of(root, "main", "^older"), "complete"),
        (lambda _, data: data[: len(data) // 2], "restorable"),
        (lambda _, data: data[:-40] + bytes(40), "restorable"),
        (lambda root, _: bundle_of(root, "HEAD", "main"), "restorable"),
        (lambda *_: b"nothing of the kind", "complete"),
    ],
    ids=["needs another", "half of it", "its end overwritten", "other refs", "no bundle"],
)
def test_the_checks_can_fail(there, root, make, red):
    """Each check finds what it is for; damage is an outcome, and no crash."""
    entry = captured(there)
    data = b"".join(there.vault.open(entry.name))
    other = made_artifact(there, entry, make(root, data))
    outcomes = {o.check: o for o in verify(there, there.component("code/bundle"), other).checks}
    assert outcomes[red].verdict is Verdict.FAILED
    assert outcomes[red].message
    assert outcomes["restorable"].verdict is Verdict.FAILED


def test_a_history_that_is_cut_off_is_found(there, root):
    """A bundle of a shallow clone may have the same refs, and git calls it complete: `restorable` looks."""
    git(root, "branch", "--delete", "--force", "older")
    git(root, "tag", "--delete", "v1")
    entry = captured(there)
    shallow(root)
    other = made_artifact(there, entry, bundle_of(root, "HEAD", "main"))
    found = checked(there, other)
    assert (found["complete"], found["restorable"]) == (True, False)


def test_damage_in_the_vault_is_found(there):
    """A flipped byte anywhere turns `restorable` or `sha256` red."""
    entry = captured(there)
    path = there.vault.local_path(entry.name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    found = checked(there, entry)
    assert not found["sha256"]
    assert not found["restorable"]


def test_a_vault_that_lost_it(there):
    """A file that is gone fails every check."""
    entry = captured(there)
    there.vault.local_path(entry.name).unlink()
    assert set(checked(there, entry).values()) == {False}


def test_a_scratch_folder_that_is_not_there(there, root, tmp_path):
    """What is wrong with this machine is no verdict on the artifact: it is an error, with the setting."""
    entry = captured(there)
    there = installed(root, tmp_path / "vault", tmp_path / "nowhere")
    with pytest.raises(SpaceError) as refused:
        checked(there, entry)
    assert "BACKUP_SCRATCH" in refused.value.hint


def test_probing_says_which_git(there, root):
    """And touches nothing."""
    assert there.component("code/bundle").probe()["git"][0].isdigit()
    assert captured(there).captured_at < datetime.now(UTC)
