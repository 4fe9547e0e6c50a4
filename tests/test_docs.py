"""The documents are true: commands, links, settings, fields and the map."""

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from bookreader_backup_assets.actions.pins import Pinned
from bookreader_backup_assets.actions.prune_records import Pruned, Removal, Trouble
from bookreader_backup_assets.cli.main import COMMANDS, group
from bookreader_backup_assets.codecs.index import Row
from bookreader_backup_assets.core.artifact import Entry, Proof
from bookreader_backup_assets.core.drill import DrillReport, Part, Result
from bookreader_backup_assets.core.manifest import Failure, Manifest, Member
from bookreader_backup_assets.core.restore_plan import RestoreReport, StepTaken
from bookreader_backup_assets.settings import load_settings, variables

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
FORMATS = (ROOT / "docs/reference/formats.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """Every relative link of a page names a file that is there."""
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_parse(page):
    """Each `bookreader-backup …` in a document is one that the program takes: command, options, arguments."""
    text = page.read_text(encoding="utf-8")
    inline = re.findall(r"`(bookreader-backup(?: [^`|\\]+)?)`", re.sub(r"\s+", " ", text))
    for line in inline + re.findall(r"^ *(bookreader-backup .*)$", text, re.MULTILINE):
        words = shlex.split(line, comments=True)[1:]
        try:
            parse(group, words)
        except click.exceptions.Exit:  # --help, --version
            pass
        except click.UsageError as error:
            pytest.fail(f"{line}: {error.format_message()}")


def parse(command, words, parent=None):
    """Have click parse words, and do nothing. Raises `click.UsageError`."""
    if not isinstance(command, click.Group):
        command.make_context(command.name, list(words), parent=parent)
    elif words and not words[0].startswith("-"):
        context = click.Context(command, parent=parent)
        found = command.get_command(context, words[0])
        if found is None:
            raise click.UsageError(f"there is no command {words[0]}")
        parse(found, words[1:], context)
    elif words:
        command.make_context(command.name, list(words), parent=parent)


def test_a_wrong_option_is_noticed():
    """The check of commands is one."""
    for wrong in (["restore", "redis", "--into", "x"], ["restore", "cache"], ["verify", "a", "b"], ["--no"]):
        with pytest.raises(click.UsageError):
            parse(group, wrong)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_exist(page):
    """Each `BACKUP_` setting in a document exists."""
    known = variables()
    for name in re.findall(r"\bBACKUP_[A-Z_]*[A-Z]\b", page.read_text(encoding="utf-8")):
        assert name in known or name.removesuffix("_FILE") in known, name


def test_every_command_is_in_the_readme():
    """A command without a word about it is not found by anybody."""
    for command in COMMANDS:
        assert f"bookreader-backup {command}" in README or f"make {command}" in README


def test_the_settings_in_the_readme_are_accepted(tmp_path):
    """The example for Docker Compose loads as it stands, secret files aside."""
    block = next(b for b in re.findall(r"```\n(.*?)```", README, re.DOTALL) if "BACKUP_KEY_FILE" in b)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    lines = [
        re.sub(r"(_FILE)=\S+", rf"\1={secret}", line.split("  #")[0].strip()) for line in block.splitlines()
    ]
    environ = dict(line.split("=", 1) for line in lines if line)
    settings = load_settings(environ, env_file=tmp_path / "none")
    assert settings.config_paths == ("docker-compose.yml", ".env", "nginx")


@pytest.mark.parametrize(
    "kind",
    [
        Entry,
        Proof,
        Row,
        Failure,
        Manifest,
        Member,
        RestoreReport,
        StepTaken,
        DrillReport,
        Part,
        Result,
        Pinned,
        Pruned,
        Removal,
        Trouble,
    ],
    ids=lambda kind: kind.__name__,
)
def test_formats_name_every_field(kind):
    """`formats.md` says something of each field that is ever stored."""
    for field in dataclasses.fields(kind):
        assert re.search(rf"\b{field.name}\b", FORMATS), f"{kind.__name__}.{field.name}"


def test_stored_documents_begin_with_their_version():
    """Whatever reads a document later sees first whether it can."""
    entry = Entry("i", "redis", "rdb", "redis/x", "2025-10-24", datetime.now(UTC), 1, "0" * 64)
    for document in (entry.to_json(), Proof("i", "redis/x", "0" * 64, datetime.now(UTC), ()).to_json()):
        assert next(iter(json.loads(document))) == "format_version"


def test_the_map_names_real_folders():
    """Each folder on the README's map is there."""
    for folder in re.findall(r"^\| ((?:`[a-z_/]+`,? ?)+) \|", README, re.MULTILINE):
        for name in re.findall(r"`([a-z_/]+)`", folder):
            assert (ROOT / name).exists() or (ROOT / "bookreader_backup_assets" / name).exists(), name


def test_help_is_what_the_readme_promises():
    """`python -m bookreader_backup_assets --help` lists the commands."""
    done = subprocess.run(
        [sys.executable, "-m", "bookreader_backup_assets", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    for command in COMMANDS:
        assert command in done.stdout
