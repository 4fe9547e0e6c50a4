"""Settings: where they come from, which one wins, and what a wrong one is told."""

import os
from datetime import date
from pathlib import Path

import pytest

from bookreader_backup_assets.core.errors import SettingsError
from bookreader_backup_assets.settings import Settings, load_settings, table, variables
from bookreader_backup_assets.settings_file import PREFIX

ROOT = Path(__file__).parents[2]
SECRETS = [name for name, field in Settings.model_fields.items() if "Secret" in str(field.annotation)]


@pytest.fixture
def env_file(tmp_path):
    """Write an `.env`, and load settings from it and an environment."""

    def load(text="", **environ):
        file = tmp_path / ".env"
        file.write_text(text, encoding="utf-8")
        return load_settings(environ, env_file=file)

    return load


def _refused(load, *arguments, **environ):
    with pytest.raises(SettingsError) as refused:
        load(*arguments, **environ)
    return refused.value


def test_nothing_set_is_fine():
    """Every setting has a default."""
    assert load_settings({}, env_file=Path("absent")) == Settings()


def test_the_environment_is_read(env_file):
    """`BACKUP_…` variables become typed settings; the rest of the environment is not looked at."""
    found = env_file(
        BACKUP_VAULT="/srv/v",
        BACKUP_FIRST_DAY="2025-10-24",
        BACKUP_CONFIG_PATHS="a, b/c ,",
        OTHER="x",
        BACKUPS="x",
    )
    assert (found.vault, found.first_day) == (Path("/srv/v"), date(2025, 10, 24))
    assert found.config_paths == ("a", "b/c")


def test_an_env_file_is_read(env_file):
    """`.env` may hold them, with quotes, comments and exports, among others; nothing is interpolated."""
    found = env_file("DB_NAME=x\nexport BACKUP_PLAN='mine.toml' # why\n\nBACKUP_KEY=\"a$b ${c}\"\n")
    assert found.plan == "mine.toml"
    assert found.key.reveal() == "a$b ${c}"


def test_the_env_file_of_the_working_folder_is_read(tmp_path, monkeypatch):
    """Without a path, it is `./.env`, and the environment is this process's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("BACKUP_PLAN=one\nBACKUP_TIMEZONE=Asia/Omsk\n", encoding="utf-8")
    monkeypatch.setitem(os.environ, "BACKUP_PLAN", "two")
    found = load_settings()
    assert (found.plan, found.timezone) == ("two", "Asia/Omsk")


@pytest.mark.parametrize("text", ["s3cr€t", "s3cr€t\n"])
def test_a_value_may_lie_in_a_file(env_file, tmp_path, text):
    """`BACKUP_…_FILE` names a file whose content is the value, without the newline at its end."""
    (tmp_path / "key").write_text(text, encoding="utf-8")
    assert env_file(BACKUP_KEY_FILE=str(tmp_path / "key")).key.reveal() == "s3cr€t"


@pytest.mark.parametrize(
    ("text", "environ", "winner"),
    [
        ("BACKUP_KEY=file", {"BACKUP_KEY": "environ"}, "environ"),
        ("BACKUP_KEY=file", {"BACKUP_KEY_FILE": "{secret}"}, "secret"),
        ("BACKUP_KEY_FILE={secret}", {"BACKUP_KEY": "environ"}, "environ"),
        ("BACKUP_KEY_FILE={secret}\nBACKUP_KEY=file", {}, "file"),
        ("BACKUP_KEY=file\nBACKUP_KEY_FILE={secret}", {}, "file"),
        ("", {"BACKUP_KEY": "environ", "BACKUP_KEY_FILE": "{secret}"}, "environ"),
        ("BACKUP_KEY=file", {"BACKUP_KEY": "", "BACKUP_KEY_FILE": "{secret}"}, "secret"),
    ],
)
def test_which_one_wins(env_file, tmp_path, text, environ, winner):
    """The environment before `.env`, in whatever form; of one source, a value before a file's."""
    secret = tmp_path / "secret"
    secret.write_text("secret", encoding="utf-8")
    filled = {name: value.format(secret=secret) for name, value in environ.items()}
    assert env_file(text.format(secret=secret), **filled).key.reveal() == winner


def test_an_empty_value_is_not_set(env_file, tmp_path):
    """Compose passes empty variables for what nobody set: the default holds, not the working folder."""
    found = env_file(
        "BACKUP_TIMEZONE=\nBACKUP_PLAN=x\n",
        BACKUP_PLAN="",
        BACKUP_VAULT="",
        BACKUP_KEY_FILE="",
        BACKUP_FIRST_DAY="",
    )
    assert found == Settings()
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    assert env_file(BACKUP_KEY_FILE=str(tmp_path / "empty")).key is None


def test_an_unknown_variable_is_refused_with_a_suggestion(env_file):
    """A typing error is not silently the default."""
    refused = _refused(env_file, BACKUP_REDIS_PASWORD="x")
    assert refused.message == "BACKUP_REDIS_PASWORD is not a setting"
    assert refused.hint == "did you mean BACKUP_REDIS_PASSWORD?"
    refused = _refused(env_file, "A=1\n\nexport BACKUP_VALUT = /x\n")
    assert "BACKUP_VALUT" in refused.message
    assert ".env, line 3" in refused.message
    assert refused.hint == "did you mean BACKUP_VAULT?"
    assert "BACKUP_POSTGRESQL_URL" in _refused(env_file, BACKUP_QQQQQQQQQQQQ="x").hint


def test_a_malformed_value_names_its_variable_and_line(env_file):
    """What is wrong, where it was set, and what may stand there."""
    assert "BACKUP_RUNNER: " in _refused(env_file, BACKUP_RUNNER="podman").message
    refused = _refused(env_file, "# comment\nBACKUP_RUNNER=podman\n")
    assert ".env, line 2" in refused.message
    assert "'docker' or 'local'" in refused.message
    assert (
        "BACKUP_FIRST_DAY: "
        in _refused(env_file, "BACKUP_FIRST_DAY=2025-01-01", BACKUP_FIRST_DAY="24.10.").message
    )


@pytest.mark.parametrize("line", ["BACKUP_VAULT /srv/v", "BACKUP_VAULT", "BACKUP_VAULT: /srv/v"])
def test_a_line_that_sets_nothing_is_named(env_file, line):
    """A line that was meant as a setting, and is none, is not passed over."""
    refused = _refused(env_file, f"X=1\n{line}\nBACKUP_PLAN=p\n")
    assert ".env, line 2" in refused.message
    assert "BACKUP_VAULT=value" in refused.message


def test_a_comment_sets_nothing(env_file):
    """A commented line is no setting, and no mistake."""
    assert env_file("#BACKUP_VAULT=/x\n # BACKUP_NONSENSE\n") == Settings()


def test_a_secret_file_that_cannot_be_read_is_named(env_file, tmp_path):
    """An absent file, a folder, bytes that are no text: the variable and the path are named."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "absent", tmp_path, tmp_path / "binary"):
        refused = _refused(env_file, BACKUP_KEY_FILE=str(path))
        assert f"BACKUP_KEY_FILE names {path}" in refused.message
        assert refused.hint


def test_an_env_file_that_is_no_text_is_refused(tmp_path):
    """It is named, rather than ending in a traceback."""
    (tmp_path / ".env").write_bytes(b"BACKUP_VAULT=\xff\n")
    assert ".env cannot be read" in _refused(load_settings, {}, env_file=tmp_path / ".env").message


def test_secrets_never_print(env_file):
    """Neither the settings nor an error about them show a password."""
    assert SECRETS == [
        "key", "postgresql_password", "postgresql_url", "redis_password", "redis_url", "git_remote",
        "offsite_access_key", "offsite_secret_key", "offsite_prune_access_key", "offsite_prune_secret_key",
    ]  # fmt: skip
    given = {f"{PREFIX}{name.upper()}": "hunter2" for name in SECRETS}
    found = env_file(**given)
    assert "hunter2" not in repr(found) + str(found) + str(found.model_dump())
    assert all(getattr(found, name).reveal() == "hunter2" for name in SECRETS)
    refused = _refused(env_file, **given, BACKUP_RUNNER="hunter2")
    assert "hunter2" not in refused.message + refused.hint


def test_settings_do_not_change():
    """They are read once; nobody turns a knob behind another's back."""
    with pytest.raises(ValueError, match="frozen"):
        Settings().plan = "x"


def test_the_documented_table_is_the_true_one():
    """`docs/reference/settings.md` holds the table that the settings make of themselves."""
    text = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
    assert table() in text, f"put this in its place:\n{table()}"


def test_every_setting_is_in_the_table():
    """With its default and its meaning; a folder that depends on the machine is named in words."""
    assert set(variables()) == {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    assert all(variables().values())
    for row in (
        "| `BACKUP_VAULT` | `/var/backups/bookreader` | Folder",
        "| `BACKUP_KEY` |  | Passphrase",
        "| `BACKUP_CONFIG_PATHS` | `docker-compose.yml,.env,nginx` | Files",
        "| `BACKUP_SCRATCH` | `TMPDIR`, or `/tmp` | Folder",
    ):
        assert row in table()


def test_a_carriage_return_in_a_secret_file_is_refused(env_file, tmp_path):
    """Gpg would take it for a part of the passphrase, and the recipe by hand would fail."""
    (tmp_path / "key").write_bytes(b"secret\r\n")
    refused = _refused(env_file, BACKUP_KEY_FILE=str(tmp_path / "key"))
    assert "carriage return" in refused.message


def test_a_byte_order_mark_hides_no_line(tmp_path):
    """An editor of Windows puts one before the first variable."""
    file = tmp_path / ".env"
    file.write_bytes(b"\xef\xbb\xbfBACKUP_PLAN=one\n")
    assert load_settings({}, env_file=file).plan == "one"


def test_a_missing_file_ending_is_suggested(env_file):
    """Who writes BACKUP_KEYFILE means the variable that names a file."""
    assert "BACKUP_KEY_FILE" in _refused(env_file, BACKUP_KEYFILE="x").hint


def test_our_own_file_is_read_alone(tmp_path, monkeypatch):
    """Beside it, BookReader's `.env` is not read: what its BACKUP_ means may be something else."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("BACKUP_PLAN=one\nBACKUP_DIR=/x\n", encoding="utf-8")
    (tmp_path / "bookreader-backup.env").write_text("BACKUP_PLAN=two\n", encoding="utf-8")
    assert load_settings({}).plan == "two"


def test_another_file_may_be_named(tmp_path, monkeypatch):
    """`BACKUP_ENV_FILE` names the only file that is read; one that is not there is not passed over."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("BACKUP_PLAN=one\n", encoding="utf-8")
    (tmp_path / "other").write_text("BACKUP_TIMEZONE=Asia/Omsk\n", encoding="utf-8")
    found = load_settings({"BACKUP_ENV_FILE": "other"})
    assert (found.plan, found.timezone) == ("production", "Asia/Omsk")
    with pytest.raises(SettingsError, match="BACKUP_ENV_FILE names gone"):
        load_settings({"BACKUP_ENV_FILE": "gone"})


def test_a_file_cannot_name_another(env_file):
    """It would be read too late to count."""
    assert "line 1" in _refused(env_file, "BACKUP_ENV_FILE=x\n").message


@pytest.mark.parametrize(
    "url", ["http://user:pw-of-s3@host", "https://pw-of-s3@host:9000", "user:pw-of-s3@host"]
)
def test_a_password_in_the_endpoint_is_refused(env_file, url):
    """It would be printed with every message of the bucket: the variable is named, and not its value."""
    for refused in (
        _refused(env_file, BACKUP_OFFSITE_ENDPOINT=url),
        _refused(env_file, f"BACKUP_OFFSITE_ENDPOINT={url}\n"),
    ):
        assert "BACKUP_OFFSITE_ENDPOINT" in refused.message
        assert "BACKUP_OFFSITE_ACCESS_KEY" in refused.hint
        assert "pw-of-s3" not in refused.message + refused.hint


@pytest.mark.parametrize(
    "url", ["host:9000", "minio", "ftp://host", "http://", "http://host:port", "http://[::1"]
)
def test_an_endpoint_that_is_no_url_is_refused(env_file, url):
    """Before anything is asked there; one that is a URL is taken as it is."""
    assert "not a URL" in _refused(env_file, BACKUP_OFFSITE_ENDPOINT=url).message
    good = "https://s3.example.org:9000/path"
    assert env_file(BACKUP_OFFSITE_ENDPOINT=good).offsite_endpoint == good


@pytest.mark.parametrize("nas", ["/srv/vault", "/srv/vault/nas", "/srv", "/srv/x/../vault/", "~/vault/nas"])
def test_a_nas_and_a_vault_in_one_another_are_refused(env_file, nas, monkeypatch):
    """What removes the one would remove the other: that is no copy. Beside one another they are taken."""
    monkeypatch.setenv("HOME", "/srv")
    refused = _refused(env_file, BACKUP_VAULT="/srv/vault", BACKUP_NAS=nas)
    assert "BACKUP_NAS and BACKUP_VAULT are in one another" in refused.message
    assert env_file(BACKUP_VAULT="/srv/vault", BACKUP_NAS="/srv/vault-of-nas").nas == Path(
        "/srv/vault-of-nas"
    )
