"""`doctor` on a bucket, and `offsite`: rules, locks, and accounts, on real S3 servers."""

import json
import os
import re
import subprocess
import sys
import uuid
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import dagster as dg
import pytest
from botocore.exceptions import ClientError

from bookreader_backup_assets.actions.back_up import back_up_today
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.examine_offsite import audit_bucket, examine_bucket
from bookreader_backup_assets.actions.examine_outside import examine_outside
from bookreader_backup_assets.actions.locks import locks, renew
from bookreader_backup_assets.actions.offsite_rules import apply, planned_change
from bookreader_backup_assets.actions.prune import prune
from bookreader_backup_assets.actions.replicas import waiting
from bookreader_backup_assets.actions.replicate import compare, replicate
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.core.errors import RefusedError, VaultError
from bookreader_backup_assets.definitions import define
from bookreader_backup_assets.servers import s3 as servers
from bookreader_backup_assets.settings import load_settings
from bookreader_backup_assets.vaults import s3_policies
from bookreader_backup_assets.vaults.s3_access import connect
from tests.fixtures.away import plan_with
from tests.fixtures.missing import missing
from tests.fixtures.particular import Quirk, particular

GUIDE = {
    "ID": "guide",
    "Status": "Enabled",
    "Filter": {"Prefix": "bookreader-backups/"},
    "Transitions": [{"Days": 30, "StorageClass": "GLACIER"}],
    "Expiration": {"Days": 365},
}
PHOTOS = {"ID": "photos", "Status": "Enabled", "Filter": {"Prefix": "photos/"}, "Expiration": {"Days": 3}}


def reach(environ, access, folder, copy="{ days = 30 }"):
    """Have settings name a bucket, and a plan that wants copies of everything there."""
    environ |= {
        "BACKUP_OFFSITE_BUCKET": access.bucket,
        "BACKUP_OFFSITE_ENDPOINT": access.endpoint,
        "BACKUP_OFFSITE_REGION": access.region,
        "BACKUP_OFFSITE_ACCESS_KEY": access.key_id.reveal(),
        "BACKUP_OFFSITE_SECRET_KEY": access.secret_key.reveal(),
        "BACKUP_PLAN": str(plan_with(folder, offsite=copy)),
    }
    return environ


def assembled(environ, like=None):
    """Return what settings describe, scratch servers and clock as in another installation."""
    made = assemble(load_settings(environ, env_file=Path(os.devnull)))
    return replace(made, scratch=like.scratch, now=like.now) if like else made


@contextmanager
def behind(environ, *quirks):
    """Have settings name the same service, which is particular now."""
    with particular(environ["BACKUP_OFFSITE_ENDPOINT"], *quirks) as endpoint:
        yield assembled({**environ, "BACKUP_OFFSITE_ENDPOINT": endpoint})


def problems(findings):
    """Return what is not good, by subject."""
    return {one.subject: one for one in findings if not one.good}


def copied(installation, *assets):
    """Capture assets, replicate all that is wanted offsite, and return their entries."""
    assert back_up_today(installation, assets, lambda error: pytest.fail(error.message))
    entries = waiting(installation, Catalog(installation.vault), "offsite")
    for entry in entries:
        assert replicate(installation, entry, "offsite").outcome.passed
    return entries


@pytest.fixture
def with_bucket(environ, bucket, tmp_path):
    """`environ`, with a bucket that has neither locks nor versions; ask for it before `installation`."""
    return reach(environ, bucket, tmp_path)


@pytest.fixture
def with_locks(environ, locking_bucket, tmp_path):
    """`environ`, with a bucket that locks, and a plan that asks for it."""
    return reach(environ, locking_bucket, tmp_path, "{ days = 30, lock_days = 14 }")


@pytest.fixture
def run(environ, tmp_path):
    """Run the program on `environ`, and return what came of it."""

    def call(*arguments):
        clean = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
        return subprocess.run(
            [sys.executable, "-m", "bookreader_backup_assets", *arguments],
            cwd=tmp_path,
            env={**clean, "HOME": str(tmp_path), **environ},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return call


# doctor


def test_doctor_is_content_with_a_bucket_that_takes_all(with_bucket, run):
    """What was tried is said, in a line each, and a full set with copies offsite ends in exit status 0."""
    assert run("backup", "--without-dagster").returncode == 0
    done = run("doctor", "--json")
    found = {one["subject"]: one for one in json.loads(done.stdout)["findings"]}
    assert (done.returncode, [one for one in found.values() if not one["good"]]) == (0, [])
    assert "SHA-256 of what it received is computed by the service" in found["offsite uploads"]["seen"]
    assert "encrypted: AES256" in found["offsite uploads"]["seen"]
    assert "no object lock" in found["offsite bucket"]["seen"]
    assert "may delete" in found["offsite deletion"]["seen"]
    assert "lists are complete" in found["offsite reading"]["seen"]
    assert "apply-lifecycle" in found["offsite rules"]["seen"]


@pytest.mark.parametrize(
    ("quirk", "subject", "seen", "setting"),
    [
        (
            Quirk(header="x-amz-checksum-", status=401, code="Unauthorized"),
            "offsite checksums",
            "the service refuses SHA-256 with `Unauthorized`",
            ("BACKUP_OFFSITE_CHECKSUMS", "none"),
        ),
        (
            Quirk(header="if-none-match", status=501, code="NotImplemented"),
            "offsite conditional",
            "the service refuses If-None-Match with `NotImplemented`",
            ("BACKUP_OFFSITE_CONDITIONAL", "false"),
        ),
        (
            Quirk(header="x-amz-server-side-encryption", status=400, code="InvalidRequest"),
            "offsite encryption",
            "the service refuses encryption by the service (AES256) with `InvalidRequest`",
            ("BACKUP_OFFSITE_ENCRYPTION", "none"),
        ),
    ],
    ids=["checksums", "conditional", "encryption"],
)
def test_doctor_names_the_setting_that_helps(with_bucket, quirk, subject, seen, setting):
    """With what it says set, it is content, and a copy arrives there: the hint is true."""
    name, value = setting
    with behind(with_bucket, quirk) as installation:
        found = problems(examine_bucket(installation))
    assert list(found) == [subject]
    assert found[subject].seen == seen
    assert found[subject].hint == f"set {name}={value}"
    with behind({**with_bucket, name: value}, quirk) as installation:
        assert problems(examine_bucket(installation)) == {}
        vault = installation.outside["offsite"].vault("somebody")
        vault.put("redis/x.rdb", [b"bytes"])
        assert b"".join(vault.open("redis/x.rdb")) == b"bytes"


def test_doctor_prints_the_first_manner_that_works(with_bucket):
    """All three settings in one line, also those that are right."""
    with behind(
        with_bucket, Quirk(header="x-amz-checksum-", status=401, code="Unauthorized")
    ) as installation:
        seen = {one.subject: one.seen for one in examine_bucket(installation)}["offsite uploads"]
    for setting in ("CHECKSUMS=none", "ENCRYPTION=AES256", "CONDITIONAL=true"):
        assert f"BACKUP_OFFSITE_{setting}" in seen


def test_doctor_says_what_to_allow(with_bucket):
    """An account that may not write is told of the policies."""
    with behind(with_bucket, Quirk(method="PUT", status=403, code="AccessDenied")) as installation:
        found = problems(examine_bucket(installation))["offsite uploads"]
    assert "AccessDenied" in found.seen
    assert "offsite policies" in found.hint


def test_doctor_goes_on_where_a_bucket_is_not_there(with_bucket):
    """A bucket that does not answer is a finding, as everything else is."""
    installation = assembled({**with_bucket, "BACKUP_OFFSITE_BUCKET": "nowhere"})
    for findings in (examine_bucket(installation), audit_bucket(installation), examine_outside(installation)):
        assert "there is no bucket nowhere" in problems(findings)["offsite"].seen


def test_doctor_knows_classes_that_the_service_has_not(with_bucket, bucket, tmp_path):
    """A row of the plan that could not be replicated is found before the night."""
    reach(with_bucket, bucket, tmp_path, '{ days = 30, storage_class = "COLDISH" }')
    found = problems(examine_bucket(assembled(with_bucket)))["offsite class COLDISH"]
    assert "InvalidStorageClass" in found.seen
    assert "postgresql" in found.hint


def test_doctor_compares_clocks(with_bucket):
    """Locks are set by this machine's clock."""
    wrong = replace(assembled(with_bucket), now=lambda: datetime.now(UTC) - timedelta(minutes=10))
    found = problems(examine_bucket(wrong))["offsite clock"]
    assert "ahead of ours" in found.seen
    assert "timedatectl" in found.hint


def test_doctor_finds_reading_that_cannot_be_trusted(with_bucket):
    """Lists that end too soon, and parts of files that are others."""
    cut = Quirk(query="list-type", edit=lambda b: b.replace(b"<IsTruncated>true", b"<IsTruncated>false"))
    shifted = Quirk(header="range", edit=lambda _: b"book")
    with behind(with_bucket, cut, shifted) as installation:
        assert {"offsite lists", "offsite reading"} <= problems(examine_bucket(installation)).keys()


def test_locks_that_no_bucket_gives_are_a_problem(with_bucket, bucket, tmp_path):
    """A plan with lock_days, and a bucket without object lock: named with its rows."""
    reach(with_bucket, bucket, tmp_path, "{ days = 30, lock_days = 14 }")
    found = problems(examine_bucket(assembled(with_bucket)))["offsite bucket"]
    assert "no object lock, no versions, and the plan asks for locks" in found.seen
    assert "when a bucket is made" in found.hint


def test_vaults_that_nobody_set_up_are_named(environ):
    """They are no fault of this host: exit status 0, and what sets them up."""
    found = {one.subject: one for one in examine_outside(assembled(environ))}
    assert found.keys() == {"offsite", "git"}
    assert all(one.good for one in found.values())
    assert "BACKUP_OFFSITE_BUCKET" in found["offsite"].seen


def test_a_nas_on_the_disk_of_the_vault_is_a_problem(with_nas):
    """It takes copies, which no failure of that disk leaves whole: before the vault is there as well."""
    found = problems(examine_outside(assembled(with_nas)))
    assert found.keys() == {"nas disk"}
    assert "no copy" in found["nas disk"].seen
    assert "findmnt" in found["nas disk"].hint


def test_a_nas_that_is_not_mounted_is_a_problem(with_nas, other_disk):
    """Its marker is what tells, before the night does."""
    with_nas["BACKUP_NAS"] = str(other_disk)
    assert problems(examine_outside(assembled(with_nas))) == {}
    (other_disk / ".bookreader-nas").unlink()
    assert "not mounted" in problems(examine_outside(assembled(with_nas)))["nas"].seen


def test_a_git_remote_that_is_not_there_is_a_problem(environ, tmp_path):
    """A path, a host or a key that is wrong shows here."""
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "there.git")], check=True, timeout=60)
    good = {**environ, "BACKUP_GIT_REMOTE": f"file://{tmp_path}/there.git"}
    assert problems(examine_outside(assembled(good))) == {}
    bad = {**environ, "BACKUP_GIT_REMOTE": f"file://{tmp_path}/nowhere.git"}
    assert problems(examine_outside(assembled(bad))).keys() == {"git"}


def test_other_installations_are_named_and_left_alone(with_bucket, bucket):
    """What somebody else keeps in the bucket is neither read nor a fault."""
    vault = assembled(with_bucket).outside["offsite"].vault("somebody-else")
    vault.put("installation.json", [b"{}"])
    found = {one.subject: one for one in examine_outside(assembled(with_bucket))}
    assert "somebody-else" in found["offsite of others"].seen
    assert all(one.good for one in found.values())


def test_the_installation_that_is_read_is_named(with_bucket):
    """On a host that takes another's place it is the one that was set; one that is not there is a problem."""
    installation = assembled({**with_bucket, "BACKUP_OFFSITE_INSTALLATION": "the-old-host"})
    assert "not there" in problems(examine_outside(installation))["offsite of another"].seen
    installation.outside["offsite"].vault("the-old-host").put("installation.json", [b"{}"])
    found = {one.subject: one for one in examine_outside(installation)}
    assert "read from here" in found["offsite of another"].seen
    assert "offsite of others" not in found
    assert all(one.good for one in found.values())
    installation.outside["offsite"].vault("a-third").put("installation.json", [b"{}"])
    found = {one.subject: one for one in examine_outside(installation)}
    said = "a-third: neither read nor touched from here, where the-old-host is read"
    assert found["offsite of others"].seen == said


# rules


@pytest.fixture
def known(with_bucket, installation):
    """An installation that has captured something."""
    assert installation.id
    return installation


def rules_of(access):
    """Return the rules that a bucket has, by id."""
    found = connect(access).get_bucket_lifecycle_configuration(Bucket=access.bucket)
    return {rule["ID"]: rule for rule in found["Rules"]}


def test_our_rules_stand_beside_those_of_others(known, bucket, run):
    """They are set once, what others set stays as it is, and a plan sets nothing."""
    connect(bucket).put_bucket_lifecycle_configuration(
        Bucket=bucket.bucket, LifecycleConfiguration={"Rules": [PHOTOS]}
    )
    planned = run("offsite", "apply-lifecycle", "--plan")
    assert "to be set" in planned.stdout
    assert rules_of(bucket).keys() == {"photos"}
    document = json.loads(run("offsite", "apply-lifecycle", "--plan", "--json").stdout)
    assert {rule["ID"] for rule in document["Rules"]} > {"photos"}
    done = run("offsite", "apply-lifecycle")
    assert (done.returncode, "photos" in done.stdout) == (0, True), done.stderr
    own = f"bookreader-backup-{known.id[:8]}-"
    assert rules_of(bucket).keys() == {"photos", f"{own}unfinished", f"{own}probes"}
    assert rules_of(bucket)["photos"]["Expiration"] == {"Days": 3}
    assert rules_of(bucket)[f"{own}unfinished"]["Filter"] == {"Prefix": f"bookreader-backups/{known.id}/"}
    assert "there already" in run("offsite", "apply-lifecycle").stdout
    assert problems(audit_bucket(known)) == {}


def test_what_we_want_no_more_is_removed(known, bucket):
    """A rule of an earlier version of this program goes; one that only looks like ours does not."""
    old = {**PHOTOS, "ID": f"bookreader-backup-{known.id[:8]}-older"}
    mine = {**old, "Filter": {"Prefix": f"bookreader-backups/{known.id}/logs/"}}
    theirs = {**old, "ID": f"bookreader-backup-{known.id[:8]}-of-somebody"}
    connect(bucket).put_bucket_lifecycle_configuration(
        Bucket=bucket.bucket, LifecycleConfiguration={"Rules": [mine, theirs]}
    )
    apply(known, planned_change(known))
    assert mine["ID"] not in rules_of(bucket)
    assert theirs["ID"] in rules_of(bucket)


def test_versions_that_were_overwritten_go_in_time(with_locks, installation, locking_bucket):
    """Only a bucket with versions has such a rule."""
    assert installation.id
    apply(installation, planned_change(installation))
    (rule,) = (rule for name, rule in rules_of(locking_bucket).items() if name.endswith("noncurrent"))
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}


def test_an_expiry_of_somebody_is_found(known, bucket, run):
    """The command ends with 1 and says which rule and what it would remove."""
    connect(bucket).put_bucket_lifecycle_configuration(
        Bucket=bucket.bucket,
        LifecycleConfiguration={"Rules": [{**PHOTOS, "Filter": {"Prefix": "bookreader-"}}]},
    )
    done = run("offsite", "audit")
    assert done.returncode == 1
    assert "rule photos" in done.stdout
    assert "postgresql 30 days" in done.stdout
    assert "rule photos" in run("doctor").stdout


def test_the_guides_rule_is_found_where_a_service_has_transitions(environ, tmp_path):
    """Glacier after 30 days, removal after 365: on moto's server, since SeaweedFS takes no transitions."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        from bookreader_backup_assets.core.secret import Secret
        from bookreader_backup_assets.vaults.s3_access import Access, make_bucket

        access = Access("guide", f"http://{host}:{port}", "us-east-1", Secret("key"), Secret("secret"))
        make_bucket(access)
        connect(access).put_bucket_lifecycle_configuration(
            Bucket="guide", LifecycleConfiguration={"Rules": [GUIDE]}
        )
        installation = assembled(reach(environ, access, tmp_path))
        assert installation.id
        said = [one.seen for one in audit_bucket(installation) if not one.good]
        assert len(said) == 2
        assert "removes what is 365 days old" in said[0]
        assert "GLACIER" in said[1]
        assert "postgresql 30 days" in said[1]
        apply(installation, planned_change(installation))  # and a rule with transitions stays as it is
        assert rules_of(access)["guide"]["Transitions"] == GUIDE["Transitions"]
        assert len(rules_of(access)) == 3
    finally:
        server.stop()


def test_a_service_without_rules_is_named_and_no_failure(known, with_bucket, environ, run):
    """It answers NotImplemented: there is nothing to audit, and nothing to set."""
    with particular(
        environ["BACKUP_OFFSITE_ENDPOINT"], Quirk(query="lifecycle", status=501, code="NotImplemented")
    ) as at:
        environ["BACKUP_OFFSITE_ENDPOINT"] = at
        audited, applied = run("offsite", "audit"), run("offsite", "apply-lifecycle")
    assert (audited.returncode, applied.returncode) == (0, 0), audited.stdout + applied.stderr
    assert "no lifecycle rules" in audited.stdout
    assert "no lifecycle rules" in applied.stdout


def test_who_may_not_set_rules_is_told_who_should(known, with_bucket):
    """The accounts of this program need no such right, and better have none."""
    refused = Quirk(query="lifecycle", method="PUT", status=403, code="AccessDenied")
    with behind(with_bucket, refused) as installation, pytest.raises(VaultError) as error:
        apply(installation, planned_change(installation))
    assert "administrator" in error.value.hint


def test_rules_that_a_service_drops_are_noticed(known, with_bucket):
    """What was set is read back: a service that takes everything and keeps half says so here."""
    drops = Quirk(query="lifecycle", method="GET", edit=lambda body: body.replace(b"-unfinished", b"-other"))
    with behind(with_bucket, drops) as installation, pytest.raises(VaultError, match="has others"):
        apply(installation, planned_change(installation))


def test_nothing_is_set_before_the_first_capture(with_bucket):
    """Without an id there is no prefix that a rule could be for."""
    with pytest.raises(RefusedError, match="nothing was captured"):
        planned_change(assembled(with_bucket))


# locks


def test_what_was_put_before_the_row_asked_is_locked(with_locks, locking_bucket, installation, tmp_path, run):
    """Copies without a lock are found, locked with all their files, and then they are well."""
    reach(with_locks, locking_bucket, tmp_path)
    (entry,) = (
        one for one in copied(assembled(with_locks, installation), "redis/rdb") if one.component == "redis"
    )
    reach(with_locks, locking_bucket, tmp_path, "{ days = 30, lock_days = 14 }")
    later = assembled(with_locks, installation)
    found = problems(audit_bucket(later))["offsite locks"]
    assert entry.name in found.seen
    assert found.hint == "bookreader-backup offsite renew-locks"
    done = run("offsite", "renew-locks")
    assert (done.returncode, entry.name in done.stdout) == (0, True), done.stderr
    vault = later.outside["offsite"].vault(later.id)
    for name in (entry.name, entry.entry_name):
        assert vault.locked_until(name) - datetime.now(UTC) > timedelta(days=13)
    assert problems(audit_bucket(later)) == {}
    assert "is locked for as long" in run("offsite", "renew-locks").stdout
    with pytest.raises(VaultError, match="is locked"):
        vault.delete(entry.name)


def test_a_lock_that_ends_before_the_plan_lets_go_is_renewed(with_locks, installation, clock):
    """Fourteen days of a lock are over while the plan keeps thirty: it is found on the day, and renewed."""
    copied(installation, "redis/rdb")
    assert problems(audit_bucket(installation)) == {}
    clock.forward(days=13)
    assert problems(audit_bucket(installation)) == {}
    clock.forward(days=2)
    assert "not locked" in problems(audit_bucket(installation))["offsite locks"].seen
    assert all(one.error is None for one in renew(installation))
    assert problems(audit_bucket(installation)) == {}


def test_the_daily_prune_renews_locks(with_locks, installation, clock, tmp_path):
    """Dagster's job locks anew what the plan keeps, also where there is nothing to remove."""
    copied(installation, "redis/rdb")
    clock.forward(days=15)
    assert "offsite locks" in problems(audit_bucket(installation))
    settings = load_settings(with_locks, env_file=tmp_path / "none")
    job = define(installation, settings).resolve_job_def("prune")
    with dg.DagsterInstance.ephemeral() as instance:
        job.execute_in_process(instance=instance, raise_on_error=False)
    assert problems(audit_bucket(installation)) == {}


def test_what_the_plan_lets_go_is_not_locked_anew(with_locks, installation, clock):
    """A copy of forty days ago is to be pruned when its lock has ended, and no day later."""
    now = clock()
    clock.at = now - timedelta(days=40)
    old = copied(installation, "redis/rdb")
    clock.at = now
    new = copied(installation, "redis/rdb")
    clock.forward(hours=20)
    held = {lock.entry.name for lock in locks(installation)}
    assert {one.name for one in new} <= held
    assert not {one.name for one in old} & held
    assert {one.entry.name for one in renew(installation)} == held


def test_nothing_is_locked_in_a_bucket_that_cannot(with_bucket, bucket, installation, tmp_path, run):
    """The missing object lock is an error with what to do, before anything is sent."""
    copied(installation, "redis/rdb")
    reach(with_bucket, bucket, tmp_path, "{ days = 30, lock_days = 14 }")
    sent = []
    quirk = Quirk(query="retention", before=sent.append)
    with behind(with_bucket, quirk) as later, pytest.raises(VaultError, match="no object lock and no ver"):
        list(renew(later))
    assert sent == []
    done = run("offsite", "renew-locks")
    assert (done.returncode, "when a bucket is made" in done.stderr) == (1, True)


def test_one_that_cannot_be_locked_does_not_stop_the_others(with_locks, installation, clock):
    """It is named with its error, and the exit status says so."""
    copied(installation, "redis/rdb", "storage/archive")
    clock.forward(days=2)
    refused = Quirk(query="retention", method="PUT", status=403, code="AccessDenied")
    with behind(with_locks, refused) as later:
        done = list(renew(replace(later, now=installation.now)))
    assert len(done) > 1
    assert all("does not allow" in one.error.message for one in done)


def test_a_plan_without_locks_renews_none(with_bucket, run):
    """It is said how a row asks for one."""
    done = run("offsite", "renew-locks")
    assert (done.returncode, "lock_days = 14" in done.stderr) == (2, True)


def test_without_a_bucket_there_is_nothing_to_see_to(run):
    """Each command says what sets it up."""
    for command in ("audit", "apply-lifecycle", "renew-locks"):
        done = run("offsite", command)
        assert (done.returncode, "BACKUP_OFFSITE_BUCKET" in done.stderr) == (2, True)


# accounts


def test_policies_are_printed_for_the_bucket_that_is_set(with_bucket, bucket, run):
    """What is printed can be given to IAM as it is."""
    assert json.loads(run("offsite", "policies", "writer").stdout) == s3_policies.writer(bucket.bucket)
    both = json.loads(run("offsite", "policies").stdout)
    assert both["pruner"] == s3_policies.pruner(bucket.bucket)


def test_the_writer_deletes_nothing():
    """Whatever is added to its policy one day, that is not."""
    text = json.dumps(s3_policies.writer("b"))
    for word in ("Delete", "s3:*", "PutLifecycle", "Bypass"):
        assert word not in text


@pytest.fixture(scope="module")
def iam_server(tmp_path_factory):
    """A server that has users and policies, too: SeaweedFS with its IAM open to its administrator."""
    folder = tmp_path_factory.mktemp("iam")
    try:
        program = servers.program()
    except servers.SourceAbsentError as error:
        missing(error.message)
    (folder / "weed").write_text(f'#!/bin/sh\nexec "{program}" "$@" -s3.iam.readOnly=false\n')
    (folder / "weed").chmod(0o700)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        with servers.start(folder / "data") as server:
            yield server


def account(server, access, policy):
    """Make a user with a policy, and return how it asks the bucket."""
    from bookreader_backup_assets.core.secret import Secret

    iam = boto3.session.Session(
        aws_access_key_id=server.key_id.reveal(),
        aws_secret_access_key=server.secret_key.reveal(),
        region_name=server.region,
    ).client("iam", endpoint_url=server.endpoint)
    name = f"u{uuid.uuid4().hex[:8]}"
    iam.create_user(UserName=name)
    made = iam.create_policy(PolicyName=name, PolicyDocument=json.dumps(policy))
    iam.attach_user_policy(UserName=name, PolicyArn=made["Policy"]["Arn"])
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return replace(access, key_id=Secret(key["AccessKeyId"]), secret_key=Secret(key["SecretAccessKey"]))


def test_the_policies_are_enough_and_no_more(iam_server, environ, installation, clock, tmp_path):
    """A real account with the writer's policy replicates, reads, audits and locks, and cannot
    delete; the pruner's can, once the lock has ended, and neither reaches anything else in the bucket.
    """
    access = iam_server.make_bucket(f"iam-{uuid.uuid4().hex[:8]}", locked=True)
    connect(access).put_object(Bucket=access.bucket, Key="photos/1", Body=b"not ours")
    writer = account(iam_server, access, s3_policies.writer(access.bucket))
    pruner = account(iam_server, access, s3_policies.pruner(access.bucket))
    host = assembled(reach(environ, writer, tmp_path), installation)

    now = clock()
    clock.at = now - timedelta(days=40)
    old = copied(host, "redis/rdb")
    for days in (12, 6):  # without a sign of life for longer, prune would doubt the clock
        clock.at = now - timedelta(days=days)
        copied(host, "redis/rdb")
    clock.at = now
    new = copied(host, "redis/rdb", "storage/archive")
    assert all(compare(host, entry, "offsite").passed for entry in new)
    assert problems([*examine_bucket(host), *audit_bucket(host), *examine_outside(host)]) == {}
    deletion = {one.subject: one.seen for one in examine_bucket(host)}["offsite deletion"]
    assert "may not delete, as it should be" in deletion
    assert "are left under bookreader-backups/.probe/" in deletion

    locked = assembled(reach(environ, writer, tmp_path, "{ days = 30, lock_days = 1 }"), installation)
    renewed = list(renew(locked))
    assert renewed
    assert all(one.error is None for one in renewed)

    tried = prune(host, "offsite", share=1.0)
    assert tried.failed
    assert all("does not allow s3:ListBucketVersions" in one.error for one in tried.failed)
    for one in (old[0].name, new[0].name):
        with pytest.raises(ClientError, match="AccessDenied"):
            connect(writer).delete_object(Bucket=access.bucket, Key=f"bookreader-backups/{host.id}/{one}")
    for theirs in (writer, pruner):
        with pytest.raises(ClientError, match="AccessDenied"):
            connect(theirs).get_object(Bucket=access.bucket, Key="photos/1")
        with pytest.raises(ClientError, match="AccessDenied"):
            connect(theirs).put_bucket_lifecycle_configuration(
                Bucket=access.bucket, LifecycleConfiguration={"Rules": [PHOTOS]}
            )

    environ |= {
        "BACKUP_OFFSITE_PRUNE_ACCESS_KEY": pruner.key_id.reveal(),
        "BACKUP_OFFSITE_PRUNE_SECRET_KEY": pruner.secret_key.reveal(),
    }
    done = prune(assembled(environ, installation), "offsite", share=1.0)
    assert done.failed == ()
    there = {entry.name for entry in Catalog(host.outside["offsite"].vault(host.id)).entries()}
    assert {entry.name for entry in old} & there == set()
    assert {entry.name for entry in new} <= there


def test_the_page_has_the_policies_as_they_are_printed():
    """Whoever copies them from there gets what the program would print."""
    page = (Path(__file__).parents[2] / "docs/reference/offsite.md").read_text(encoding="utf-8")
    blocks = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL)]
    assert blocks == [s3_policies.writer("BUCKET"), s3_policies.pruner("BUCKET")]


AWS = """
import fnmatch, os, sys
from pathlib import Path
import boto3
import dagster as dg
client = boto3.session.Session(os.environ["KEY"], os.environ["SECRET"], region_name="us-east-1").client(
    "s3", endpoint_url=os.environ["ENDPOINT"]
)
words = [word for word in sys.argv[1:] if word != "--recursive"]
bucket, prefix = words[2].removeprefix("s3://").split("/", 1)
assert words[:1] == ["s3"] and words[1] in ("ls", "cp") and len(words) == (3 if words[1] == "ls" else 4)
if words[1] == "ls":
    for one in client.list_objects_v2(Bucket=bucket, Prefix=prefix, Delimiter="/").get("CommonPrefixes", []):
        print("PRE", one["Prefix"].removeprefix(prefix))
    sys.exit()
pairs = [(prefix, Path(words[3]))]
if "--recursive" in sys.argv:
    there = client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
    pairs = [(one["Key"], Path(words[3]) / one["Key"].removeprefix(prefix)) for one in there]
for key, path in pairs:
    path.parent.mkdir(parents=True, exist_ok=True)
    client.download_file(bucket, key, str(path))
"""
"""What the page uses of the `aws` command, which is not installed here."""


def test_a_set_comes_back_by_hand(with_bucket, bucket, installation, system, tmp_path):
    """The page's commands, with no program of ours: fetched by the manifest, compared, decrypted."""
    copied(installation, "postgresql/dump", "redis/rdb", "storage/archive")
    page = (Path(__file__).parents[2] / "docs/reference/offsite.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (script,) = (block for block in blocks if "aws s3 ls" in block)
    for placeholder, value in (
        ("BUCKET", bucket.bucket),
        ("INSTALLATION", installation.id),
        ("2025-10-24", installation.today()),
        ("postgresql/bookreader_", f"postgresql/{system.database.replace('_', '-')}_"),
    ):
        script = script.replace(placeholder, value)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/aws").write_text(f"#!{sys.executable}\n{AWS}")
    (tmp_path / "bin/aws").chmod(0o700)
    (tmp_path / "backup_key").write_bytes(Path(with_bucket["BACKUP_KEY_FILE"]).read_bytes())
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
            "KEY": bucket.key_id.reveal(),
            "SECRET": bucket.secret_key.reveal(),
            "ENDPOINT": bucket.endpoint,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert installation.id in done.stdout
    assert "FAILED" not in done.stdout
    assert (tmp_path / "copy/dump.rdb").read_bytes().startswith(b"REDIS")
    assert (tmp_path / "copy/bookreader.dump").read_bytes().startswith(b"PGDMP")
    files = [path for path in system.storage.rglob("*") if path.is_file()]
    found = {path.name: path.read_bytes() for path in (tmp_path / "copy").rglob("*.bin")}
    assert found == {path.name: path.read_bytes() for path in files}
