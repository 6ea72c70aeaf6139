"""Every public name has one entry in the reference; and what judges a built site sees what is wrong."""

from __future__ import annotations

import importlib.util
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.site.built import broken_links, generated_defaults, inventory
from tests.site.public import entries, missing, public_names

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def test_every_public_name_has_one_entry_and_no_other_name_has() -> None:
    assert {module: sorted(names) for module, names in entries(REFERENCE).items()} == {
        module: sorted(names) for module, names in public_names().items()
    }


def test_a_name_without_an_entry_is_missed() -> None:
    wanted = {"trio_ipc": {"serve", "Client"}, "trio_ipc.aio": {"Client"}}
    assert missing(wanted, {"trio_ipc.serve", "trio_ipc.Client"}) == ["trio_ipc.aio.Client"]


def test_entries_are_counted_by_the_module_that_is_current(tmp_path: Path) -> None:
    page = ".. automodule:: a\n.. currentmodule:: a\n\n.. autofunction:: f\n.. py:data:: f\n"
    page += ".. currentmodule:: b\n.. autoclass:: C\n"
    (tmp_path / "page.md").write_text(page, encoding="utf-8")
    assert entries(tmp_path) == {"a": ["f", "f"], "b": ["C"]}


def build(site: Path, **pages: str) -> None:
    for name, text in pages.items():
        (site / f"{name}.html").write_text(text, encoding="utf-8")


def test_a_link_to_a_page_and_an_anchor_is_whole(tmp_path: Path) -> None:
    link = '<a href="b.html#part"></a><a href="#here" id="here"></a><img src="b.html">'
    build(
        tmp_path, a=link + '<a href="https://example.org/x"></a><a href="."></a>', b='<p id="part">', index=""
    )
    assert broken_links(tmp_path) == []


@pytest.mark.parametrize("link", ["c.html", "b.html#other", "#nowhere", "../outside.html", "no-folder/"])
def test_a_link_that_leads_nowhere_is_told_with_its_page(tmp_path: Path, link: str) -> None:
    site = tmp_path / "site"
    site.mkdir()
    build(tmp_path, outside="")
    build(site, a=f'<a href="{link}"></a>', b='<p id="part">')
    assert broken_links(site) == [f"a.html: {link}"]


def test_an_inventory_tells_its_python_names(tmp_path: Path) -> None:
    rows = b"trio_ipc.serve py:function 1 a.html#$ -\nindex std:doc -1 index.html Documentation\n"
    head = b"# Sphinx inventory version 2\n# Project: x\n# Version: 1\n# The rest is compressed\n"
    (tmp_path / "objects.inv").write_bytes(head + zlib.compress(rows))
    assert inventory(tmp_path) == {"trio_ipc.serve"}


def test_a_default_that_only_generated_code_has_is_told_with_its_page(tmp_path: Path) -> None:
    build(
        tmp_path,
        a="<span>attr_dict[&#39;size&#39;].default</span><span>NOTHING</span>",
        b="<span>1048576</span><p>attrs.NOTHING is a value, and attr_dict[x] a name</p>",
    )
    assert generated_defaults(tmp_path) == ["a.html: attr_dict[&#39;size&#39;]", "a.html: NOTHING"]


def module_at(folder: str, name: str) -> Any:
    """A module of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / folder / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pictures_are_those_that_the_code_gives() -> None:
    for file, text in module_at("diagrams", "draw.py").drawn().items():
        assert file.read_text(encoding="utf-8") == text, "run python docs/diagrams/draw.py"


def test_links_of_a_page_that_stands_outside_are_turned_to_the_site() -> None:
    outside = module_at("_ext", "pages_outside.py")
    text = (
        "[a](docs/index.md#how-to-guides) [b](LICENSE) [c](https://example.org/) [d](SECURITY.md) [e](#here)"
    )
    assert outside.turned(text, ROOT / "README.md", ROOT / "docs" / "project" / "readme.md") == (
        "[a](../index.md#how-to-guides) [b](path:../../LICENSE) [c](https://example.org/) "
        "[d](security-policy.md) [e](#here)"
    )
