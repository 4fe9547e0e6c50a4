"""What somebody types for a restore: neither too strict about a slash, nor generous with nothing."""

import pytest

from bookreader_backup_assets.actions.restoring import require_confirmed
from bookreader_backup_assets.components.file_choice import choose
from bookreader_backup_assets.core.errors import RefusedError


def test_a_folder_may_end_in_a_slash():
    """A shell that completes a folder's name writes one."""
    require_confirmed("/app/storage", "/app/storage/", "the folder")


@pytest.mark.parametrize(
    ("target", "typed"),
    [("/app/storage", "/app"), ("/app/storage", ""), ("bookreader", "bookreader/"), ("/app/storage", "/")],
)
def test_another_name_is_none(target, typed):
    """Nothing is touched, and the name to type is said."""
    with pytest.raises(RefusedError) as refused:
        require_confirmed(target, typed, "it")
    assert refused.value.hint == f"type its name back: --confirm {target}"


@pytest.mark.parametrize("path", ["", " "])
def test_an_empty_path_is_not_everything(path):
    """A variable that was not set must not restore a terabyte."""
    with pytest.raises(RefusedError, match="an empty path would be everything"):
        choose(lambda _: iter(()), [path], "/app/storage")
