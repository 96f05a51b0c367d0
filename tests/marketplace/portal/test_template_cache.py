"""Compiled templates are kept for the next process, where nobody else can change them."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from marketplace.portal.frame import make_environment

TEMPLATE = "problem.html"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of compiled templates, in a temporary directory of this test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"_jinja2-cache-{os.getuid()}"


def test_the_next_process_loads_a_template_instead_of_compiling_it(directory: Path) -> None:
    make_environment().get_template(TEMPLATE)
    [compiled] = directory.iterdir()
    compiled.write_bytes(compiled.read_bytes().replace(b"request <code>", b"REQUEST <code>"))
    problem = {"detail": "It is late.", "errors": (), "code": "late", "instance": "1"}
    assert "REQUEST <code>1" in make_environment().get_template(TEMPLATE).render(problem=problem)


def test_the_directory_is_for_this_user_alone(directory: Path) -> None:
    make_environment().get_template(TEMPLATE)
    assert stat.S_IMODE(directory.stat().st_mode) == stat.S_IRWXU


def test_an_unsafe_directory_is_not_used(directory: Path, tmp_path: Path) -> None:
    target = tmp_path / "of-somebody-else"
    target.mkdir()
    directory.symlink_to(target)
    environment = make_environment()
    assert environment.bytecode_cache is None
    assert environment.get_template(TEMPLATE)
    assert list(target.iterdir()) == []


def test_a_template_that_cannot_be_stored_is_shown_all_the_same(directory: Path) -> None:
    environment = make_environment()
    directory.rmdir()
    assert environment.get_template(TEMPLATE)
    assert not directory.exists()
