"""Whether what is deployed is on a remote of its repository, with real repositories."""

import os
import subprocess

import pytest

from bookreader_backup_assets.actions.code_remote import on_remote
from bookreader_backup_assets.actions.examine import examine
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.definitions import define
from tests.defs.conftest import QUIET
from tests.fixtures.code import commit, git, repository
from tests.fixtures.git import QUOTED, TOKEN


@pytest.fixture
def code(tmp_path, git_remote):
    """A work tree whose remote, `origin`, has all of it."""
    folder = repository(tmp_path / "code")
    git(folder, "remote", "add", "origin", git_remote.as_uri())
    git(folder, "push", "--quiet", "--all", "origin")
    return folder


def _states(folder):
    return {
        "refs": git(folder, "for-each-ref"),
        "files": sorted(str(path) for path in (folder / ".git").rglob("*")),
        "config": (folder / ".git" / "config").read_text(),
    }


def test_what_was_pushed_is_there(code, tmp_path):
    """The check names branch and remote, and changes nothing in the repository."""
    before = _states(code)
    found = on_remote(code, tmp_path)
    assert found.passed
    assert found.message == f"commit {git(code, 'rev-parse', 'HEAD')[:12]} is on main of origin"
    assert _states(code) == before
    assert not list(tmp_path.glob("bookreader-git-*"))


def test_what_was_only_committed_here_is_not(code, tmp_path):
    """A fix made on the host at night fails until it is pushed, on whatever branch."""
    fixed = commit(code, "fix", {"fix.py": "1\n"})
    found = on_remote(code, tmp_path)
    assert found.verdict is Verdict.FAILED
    assert found.message == (
        f"commit {fixed[:12]} is on no branch and no tag of origin: it exists only on this host; push it"
    )
    git(code, "push", "--quiet", "origin", "HEAD:refs/heads/night")
    assert "on night of origin" in on_remote(code, tmp_path).message


def test_what_the_remote_has_grown_by_is_looked_at(code, git_remote, tmp_path):
    """Commits on top that are not known here are fetched to somewhere else, and the deployed one is found."""
    other = tmp_path / "other"
    git(tmp_path, "clone", "--quiet", "--branch=main", git_remote.as_uri(), str(other))
    on_top = commit(other, "on top", {"new.py": "1\n"})
    git(other, "push", "--quiet", "origin", "main")
    before = _states(code)
    assert "on main of origin" in on_remote(code, tmp_path).message
    assert _states(code) == before
    with pytest.raises(subprocess.CalledProcessError):
        git(code, "cat-file", "-e", on_top)
    commit(code, "fix", {"fix.py": "1\n"})
    assert on_remote(code, tmp_path).verdict is Verdict.FAILED


def test_a_tag_is_enough(code, tmp_path):
    """An annotated tag that has the commit, and no branch."""
    tagged = commit(code, "release", {"v": "2\n"})
    git(code, "tag", "--annotate", "--message=2", "v2")
    git(code, "push", "--quiet", "origin", "v2")
    assert on_remote(code, tmp_path).message == f"commit {tagged[:12]} is on v2 of origin"


def test_an_earlier_commit(code, tmp_path):
    """What was deployed in another week is looked for by its name; one that is gone cannot be."""
    first = git(code, "rev-parse", "older")
    commit(code, "fix", {"fix.py": "1\n"})
    assert on_remote(code, tmp_path, first).passed
    assert on_remote(code, tmp_path, "0" * 39 + "1").verdict is Verdict.INCONCLUSIVE


def test_several_remotes(code, tmp_path):
    """One that has it is enough. Where one has it not and another cannot be asked, nobody can tell."""
    commit(code, "fix", {"fix.py": "1\n"})
    git(code, "remote", "add", "gone", (tmp_path / "gone.git").as_uri())
    found = on_remote(code, tmp_path)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "gone cannot be asked" in found.message
    git(code, "push", "--quiet", "origin", "main")
    assert on_remote(code, tmp_path).passed


def test_where_nobody_can_tell(code, tmp_path):
    """No remote, no repository, no commit: each is said, and is no pass."""
    (tmp_path / "none").mkdir()
    (tmp_path / "new").mkdir()
    git(tmp_path / "new", "init", "--quiet")
    git(code, "remote", "remove", "origin")
    for folder, said in ((code, "no remote"), (tmp_path / "none", "not a git"), (tmp_path / "new", "asked")):
        found = on_remote(folder, tmp_path)
        assert found.verdict is Verdict.INCONCLUSIVE
        assert said in found.message


def test_a_remote_beside_the_work_tree(code, git_remote, tmp_path):
    """An address may be a path as seen from the work tree, and `.git` a file that leads elsewhere."""
    git(code, "remote", "set-url", "origin", os.path.relpath(git_remote, code))
    git(code, "worktree", "add", "--quiet", "--detach", str(tmp_path / "tree"))
    assert on_remote(code, tmp_path).passed
    git(tmp_path / "tree", "remote", "set-url", "origin", str(git_remote))
    assert on_remote(tmp_path / "tree", tmp_path).passed


def test_nothing_that_the_repository_names_is_run(code, tmp_path):
    """Its configuration may name programs, and its remote be one: none of them is started."""
    trap = tmp_path / "trap"
    for name in ("core.fsmonitor", "core.sshCommand", "core.alternateRefsCommand", "credential.helper"):
        git(code, "config", name, f"touch {trap}; false")
    git(code, "config", "remote.origin.uploadpack", f"touch {trap}; git-upload-pack")
    git(code, "config", "remote.evil.url", f"ext::touch {trap}")
    assert on_remote(code, tmp_path).passed
    assert not trap.exists()


def test_a_token_in_its_address_is_not_shown(code, http_remote, tmp_path):
    """It lets us in, and appears in no command line and no message."""
    git(code, "remote", "set-url", "origin", http_remote.url)
    assert on_remote(code, tmp_path).passed
    assert http_remote.authorized
    assert not [one for one in http_remote.seen for secret in (TOKEN, QUOTED) if secret in one]
    git(code, "remote", "set-url", "origin", http_remote.url.replace("remote.git", "absent.git"))
    assert QUOTED not in on_remote(code, tmp_path).message


def _own_code(environ, code):
    environ["BACKUP_CODE_PATH"] = str(code)


def test_doctor_says_it(environ, code, request):
    """What exists only here is a problem with a hint; what nobody can tell is said, and is none."""
    _own_code(environ, code)
    installation = request.getfixturevalue("installation")

    def found():
        return next(f for f in examine(installation, {}) if f.subject == "code on remote")

    assert found().good
    commit(code, "fix", {"fix.py": "1\n"})
    assert (found().good, "push it" in found().hint) == (False, True)
    git(code, "remote", "remove", "origin")
    assert (found().good, "no remote" in found().seen) == (True, True)


def test_it_reddens_its_check_and_blocks_nothing(environ, code, request):
    """Under Dagster the week's run succeeds, its bundle is verified, and this check alone has failed."""
    _own_code(environ, code)
    commit(code, "fix", {"fix.py": "1\n"})
    settings, installation = (request.getfixturevalue(name) for name in ("settings", "installation"))
    job = define(installation, settings).resolve_job_def("capture_code")
    done = job.execute_in_process(partition_key=installation.week_of("code"), run_config=QUIET)
    assert done.success
    red = {one.check_name for one in done.get_asset_check_evaluations() if not one.passed}
    assert red == {"on_remote"}
