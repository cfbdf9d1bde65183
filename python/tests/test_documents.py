"""The code of the documents runs as it stands."""

from __future__ import annotations

import doctest
import os
import pathlib
import subprocess
import sys
from typing import Any

import dekseal
import pytest
from conftest import REPOSITORY, Token


def blocks(document: str) -> list[str]:
    text = (REPOSITORY / document).read_text()
    found = [part.split("\n```", 1)[0] for part in text.split("```python\n")[1:]]
    assert found, "the search is broken"
    return found


def run(document: str, directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch, names: dict[str, Any]) -> None:
    monkeypatch.chdir(directory)
    for block in blocks(document):
        exec(compile(block, document, "exec", dont_inherit=True), names)


@pytest.mark.parametrize("document", ["python/README.md", "docs/guide/python.md"])
def test_documents_run(document: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, token: Token) -> None:
    names: dict[str, Any] = {
        # The module's name, which SQLAlchemy looks up for the types of attributes.
        "__name__": "__main__",
        "module": token.module,
        "pin": token.pin,
    }
    run(document, tmp_path, monkeypatch, names)
    if "database" in names:
        names["database"].dispose()


def test_docstrings_run() -> None:
    tried = doctest.testmod(dekseal)
    assert tried.attempted > 5
    assert tried.failed == 0


def test_the_module_runs_the_command(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "dekseal", "key", "list"]
    environment = {**os.environ, "PATH": str(tmp_path)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 127
    assert ran.stderr.startswith("the command dekseal is not installed")
    fake = tmp_path / "dekseal"
    fake.write_text('#!/bin/sh\necho "$@"\nexit 3\n')
    fake.chmod(0o755)
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (3, "key list\n")
