"""BookReader's code, or a little of it: a git repository in the folder of its compose file."""

from __future__ import annotations

from pathlib import Path

from bookreader_backup_assets.components.code_git import Git

_AUTHOR = ("-c", "user.name=Demo", "-c", "user.email=demo@bookreader.example.org")
_FILES = {
    ".gitignore": ".env\nnginx/certs/\n",
    "backend/Dockerfile": 'FROM python:3.11-slim\nCOPY app /app\nCMD ["python", "/app/main.py"]\n',
    "backend/app/main.py": 'print("BookReader AI")\n',
    "frontend/index.html": "<!doctype html>\n<title>BookReader AI</title>\n",
}


def write_code(folder: Path) -> None:
    """Make `folder` a repository of two commits, with what is in it already but for secrets.

    Raises `SourceAbsentError` where this machine has no git.
    """
    git = Git(folder / ".git", work_tree=folder)
    git.run("init", "--quiet", "--template=")
    for name, text in _FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    git.run("add", "--", *_FILES)
    git.run(*_AUTHOR, "commit", "--quiet", "--message", "The application")
    git.run("tag", "v1.0")
    git.run("add", "--all", "--", str(folder))
    git.run(*_AUTHOR, "commit", "--quiet", "--message", "How it is deployed")
