"""Pages of the runbooks, and the blocks of commands in them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNBOOKS = ROOT / "docs" / "runbooks"


def blocks(page: Path) -> list[tuple[str, str]]:
    """Every fenced block of a page: what stands after ```` ```sh ````, and its text."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```sh ?([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
