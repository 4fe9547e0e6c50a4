"""What differs between two states of a configuration: names and sizes, and never what they hold."""

import dataclasses

import pytest

from bookreader_backup_assets.components.config_diff import Variables, by_size, differences
from bookreader_backup_assets.components.config_members import Member


def member(name=".env", data=b"", *, kind="file", mode=0o600, mtime=1, target=""):
    """Return a path of a configuration."""
    return Member(name, kind, mode, 0, 0, mtime, target, data)


def variables(older, newer, name=".env"):
    """Return what is said of the variables of a file that changed."""
    (change,) = differences([member(name, older)], [member(name, newer)])
    assert change.what == "changed"
    return change.variables


def test_each_kind_of_change_is_told_by_its_word():
    """Added, removed, changed, and the mode alone; what is the same at another time is no difference."""
    same = member("nginx/nginx.conf", b"events {}", mode=0o644)
    older = [same, member("gone.yml", b"a"), member("a.yml", b"12"), member("key.pem", b"k", mode=0o644)]
    newer = [
        dataclasses.replace(same, mtime=99),
        member("new.yml", b"abc"),
        member("a.yml", b"123"),
        member("key.pem", b"k"),
    ]
    found = [(c.path, c.what, c.older_size, c.newer_size, c.said) for c in differences(older, newer)]
    assert found == [
        ("a.yml", "changed", 2, 3, ""),
        ("gone.yml", "removed", 1, None, ""),
        ("key.pem", "mode", 1, 1, "mode 600, was 644"),
        ("new.yml", "added", None, 3, ""),
    ]
    assert differences(older, older) == []


def test_content_of_the_same_size_differs():
    """A password that was replaced by one of the same length is a change."""
    (change,) = differences([member("a", b"secret-1")], [member("a", b"secret-2", mode=0o640)])
    assert (change.what, change.older_size, change.newer_size) == ("changed", 8, 8)
    assert change.said == "mode 640, was 600"


def test_links_and_kinds():
    """A link that leads elsewhere is a change, and so is a file where a link was; where to is not said."""
    link = member("live.pem", kind="symlink", target="secret-1.pem")
    (moved,) = differences([link], [dataclasses.replace(link, target="secret-2.pem")])
    assert (moved.what, moved.said, moved.older_size) == ("changed", "leads elsewhere", None)
    (made,) = differences([link], [member("live.pem", b"pem")])
    assert (made.said, made.older_size, made.newer_size) == ("is a file, was a symlink", None, 3)


def test_variables_are_named_and_their_values_are_not():
    """Names added, removed and changed; order, comments, quotes and spaces are no variable."""
    older = b"# secret\nA=1\nGONE=hunter2\nexport PW='hunter3'\nmixed_Case=hunter4\n"
    newer = b'PW="hunter5"\n\nA = 1\nNEW=\n# hunter6\nmixed_Case=hunter7\n'
    found = variables(older, newer)
    assert found == Variables(("NEW",), ("GONE",), ("PW",), others=1)
    assert "hunter" not in str(found)
    assert str(variables(b"A=1\nB=2\n", b"B=2\nA=1\n")).startswith("no variable")


@pytest.mark.parametrize(
    "secret",
    [
        b"KEY=-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\nc2VjcmV0QQ==\n-----END PRIVATE KEY-----\n",
        b"KEY=x\nc2VjcmV0=\n",
        b"KEY=x\nMFRGGZDF====\n",
        b"hunter2\n",
        b"Pass Word=hunter2\n",
        b"'hunter2\n",
        b"\xff\xfe=1\n",
    ],
    ids=["pem", "base64", "base32", "a word", "a space", "a quote", "no text"],
)
def test_a_line_that_may_be_part_of_a_secret_is_counted_not_shown(secret):
    """What only looks like an assignment, or like nothing, never becomes a name."""
    for older, newer in ((b"A=1\n", b"A=1\n" + secret), (secret + b"A=1\n", b"A=2\n")):
        found = variables(older, newer)
        assert found.others > 0
        assert {*found.added, *found.removed, *found.changed} <= {"A", "KEY"}


def test_only_files_of_variables_are_read_for_names():
    """`.env`, `.env.prod` and `prod.env`, in any folder; a compose file is told by its size."""
    for name in (".env", ".env.prod", "deploy/prod.env", "deploy/.env"):
        assert variables(b"A=1", b"A=2", name).changed == ("A",)
    assert variables(b"A=1", b"A=2", "docker-compose.yml") is None


def test_without_contents_names_and_sizes_are_compared():
    """The entry alone tells what came, what went, and what has another size."""
    found = by_size({"a": 1, "b": 2, "c": 3}, {"b": 2, "c": 4, "d": 5})
    assert [(c.path, c.what, c.older_size, c.newer_size) for c in found] == [
        ("a", "removed", 1, None),
        ("c", "changed", 3, 4),
        ("d", "added", None, 5),
    ]
