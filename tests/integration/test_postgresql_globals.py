"""`postgresql/globals` on a real server: roles, encrypted, whole."""

import dataclasses

import pytest

from bookreader_backup_assets.codecs.gpg import Gpg
from bookreader_backup_assets.components.postgresql import PostgresqlDump
from bookreader_backup_assets.components.postgresql_globals import PostgresqlGlobals
from bookreader_backup_assets.core.check import Verdict
from bookreader_backup_assets.core.errors import CommandError, KeyMissingError, SourceError
from bookreader_backup_assets.core.secret import Secret
from bookreader_backup_assets.runners.local import LocalRunner
from tests.fixtures.postgresql import KEY, ODD_ROLE, SUPERUSER, USER, USER_PASSWORD


@pytest.fixture
def roles(postgresql_server):
    """The component."""
    return PostgresqlGlobals(postgresql_server.runner, postgresql_server.env, "shape", KEY)


def _text(kept, entry):
    codecs = kept.installation.codecs
    return b"".join(codecs.decode(entry.codecs, kept.installation.vault.open(entry.name))).decode()


def test_roles_are_kept_encrypted_and_whole(roles, postgresql_kept):
    """Every role with its hash, and none of it in clear; the check decrypts and counts them."""
    kept = postgresql_kept(roles)
    entry = kept.capture("postgresql/globals")
    assert entry.name.endswith(".sql.gz.gpg")
    assert entry.fingerprint == {"kind": "roles", "roles": sorted([SUPERUSER, USER, ODD_ROLE])}
    assert entry.problems == ()
    assert b"ROLE" not in kept.path(entry).read_bytes()
    assert _text(kept, entry).count("SCRAM-SHA-256$") == 2
    found = kept.verify(entry)
    assert set(found) == {"not_empty", "sha256", "decrypts"}
    assert all(outcome.passed for outcome in found.values()), found
    assert found["decrypts"].measured == {"roles": 3}


def test_a_user_without_the_right_keeps_roles_without_hashes(roles, postgresql_kept):
    """An ordinary user cannot read hashes: captured without them, and recorded as a problem."""
    env = {**roles.env, "PGUSER": USER, "PGPASSWORD": USER_PASSWORD}
    kept = postgresql_kept(dataclasses.replace(roles, env=env))
    entry = kept.capture("postgresql/globals")
    assert "without passwords" in entry.problems[0].what
    assert "SCRAM" not in _text(kept, entry)
    assert kept.verify(entry)["decrypts"].passed


def test_without_a_key_nothing_is_read(roles, postgresql_kept):
    """No key is a refusal before the server is asked anything, and leaves no file."""
    keyless = dataclasses.replace(roles, gpg=Gpg(None), env={})
    kept = postgresql_kept(keyless)
    with pytest.raises(KeyMissingError):
        kept.capture("postgresql/globals")
    with pytest.raises(KeyMissingError):
        keyless.probe()
    assert not [name for name in kept.files() if name.endswith(".gpg")]


def test_a_wrong_password_says_what_to_do(roles):
    """The same sentence as for the dump."""
    wrong = dataclasses.replace(roles, env={**roles.env, "PGPASSWORD": "wrong"})
    with pytest.raises(SourceError, match="does not let this user in"), wrong.capture():
        pass


def test_a_failing_pg_dumpall_leaves_no_file(roles, postgresql_kept):
    """Its exit status is looked at: what it had printed is not kept."""

    class Failing(LocalRunner):
        def stream(self, argv, **given):
            yield from super().stream(argv, **given)
            raise CommandError(argv[0], 1, "it broke at the end")

    kept = postgresql_kept(dataclasses.replace(roles, runner=Failing(programs=roles.runner.programs)))
    with pytest.raises(CommandError, match="broke at the end"):
        kept.capture("postgresql/globals")
    assert not [name for name in kept.files() if name.endswith(".gpg")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda sql: sql.replace("CREATE ROLE bookreader_user;", ""), "no role bookreader_user"),
        (lambda sql: sql[: len(sql) // 2], "cut short"),
        (lambda sql: "", "cut short"),
        (lambda sql: "-- CREATE ROLE bookreader_user;\n" + sql.replace("CREATE ROLE", "--"), "no role"),
    ],
    ids=["a role missing", "cut short", "empty", "comments only"],
)
def test_sql_that_is_not_whole_fails(change, said, roles, postgresql_kept):
    """Text that lacks a role or its end fails, though it decrypts."""
    kept = postgresql_kept(roles)
    entry = kept.capture("postgresql/globals")
    changed = change(_text(kept, entry)).encode()
    kept.path(entry).write_bytes(b"".join(kept.installation.codecs.encode(entry.codecs, [changed])))
    outcome = kept.verify(entry, "decrypts")["decrypts"]
    assert outcome.verdict is Verdict.FAILED
    assert said in outcome.message


@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_damaged_roles_fail_and_say_nothing_of_the_dump(damage, roles, postgresql_server, postgresql_kept):
    """They fail their own check; whether the dump beside them is restorable cannot be told."""
    kept = postgresql_kept(roles, PostgresqlDump(postgresql_server.runner, postgresql_server.env, "shape"))
    entry = kept.capture("postgresql/globals")
    dump = kept.capture()
    data = bytearray(kept.path(entry).read_bytes())
    data[len(data) // 2] ^= 1
    kept.path(entry).write_bytes(data if damage == "flipped" else data[: len(data) // 2])
    assert kept.verify(entry, "decrypts")["decrypts"].verdict is Verdict.FAILED
    found = kept.verify(dump)
    assert found["restorable"].verdict is Verdict.INCONCLUSIVE
    assert f"the roles are made from {entry.name}, which is damaged" in found["restorable"].message
    assert found["sha256"].passed
    kept.path(entry).unlink()
    assert kept.verify(dump, "restorable")["restorable"].verdict is Verdict.INCONCLUSIVE


def test_another_key_is_inconclusive(roles, postgresql_kept, postgresql_server):
    """Not damage: this machine has the wrong key, and a warning says so."""
    kept = postgresql_kept(roles, PostgresqlDump(postgresql_server.runner, postgresql_server.env, "shape"))
    entry = kept.capture("postgresql/globals")
    dump = kept.capture()
    other = Gpg(Secret("another"))
    known = kept.installation.codecs.known
    known["gpg"] = dataclasses.replace(known["gpg"], decode=other.decode)
    for checked, name in ((entry, "decrypts"), (dump, "restorable")):
        outcome = kept.verify(checked, name)[name]
        assert outcome.verdict is Verdict.INCONCLUSIVE
        assert "does not open" in outcome.message
