"""Links in the documentation lead somewhere, and its names, settings and defaults are those of the code."""

from __future__ import annotations

import inspect
import re
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import pytest

import trio_ipc
from tests.docs_support import CHANGELOG, DOCS, PAGES, ROOT
from tests.site.public import public_names
from tests.test_package import PACKAGES
from trio_ipc import (
    ClientMetrics,
    ClientSnapshot,
    EndpointSnapshot,
    IpcConfig,
    ResilientConfig,
    ResilientSnapshot,
    ServerSnapshot,
)
from trio_ipc.endpoint import DEFAULT_SOCKET
from trio_ipc.telemetry import CallFailure, CloseReason, Refusal, RequestFailure, TimeoutKind
from trio_ipc.telemetry.kinds import Kind
from trio_ipc.telemetry.metrics import METRICS
from trio_ipc.transports import Duplex

#: The only hosts that a page may name.
HOSTS = {"keepachangelog.com", "semver.org"}

PUBLIC = sorted({name for names in public_names().values() for name in names})


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual renderers make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        assert page.name == "index.md" or f"]({page.name})" in index


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_this_machine_or_a_strange_host(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for place in (str(ROOT), "/root", "/home", "/Users"):
        assert not re.search(rf"(?<![\w.]){re.escape(place)}/", text), place
    assert {urlsplit(url).hostname for url in re.findall(r"\w+://[^\s)>`]+", text)} <= HOSTS


def test_the_changelog_tells_of_every_public_name() -> None:
    text = CHANGELOG.read_text(encoding="utf-8")
    assert [name for name in PUBLIC if not re.search(rf"`{name}[`(]", text)] == []


def test_every_setting_is_told_with_its_default_and_its_variable() -> None:
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    defaults = attrs.asdict(IpcConfig())
    if sys.platform == "win32":
        defaults["endpoint_path"] = DEFAULT_SOCKET  # docs/windows.md has the pipe's name
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| `([^`]+)` \| [^|]+ \| `(\w+)` \|$", text, re.MULTILINE)
    assert rows == [
        (name, f'"{value}"' if isinstance(value, str) else str(value), f"TRIO_IPC_{name.upper()}")
        for name, value in defaults.items()
    ]
    meanings = text.partition("## What they mean")[2]
    assert [name for name in defaults if f"| `{name}` |" not in meanings] == []


def test_every_setting_of_the_resilient_client_is_told_with_its_default() -> None:
    text = (DOCS / "resilient-client.md").read_text().partition("## Settings")[2]
    assert re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", text, re.MULTILINE) == [
        (name, f'"{value}"' if isinstance(value, str) else str(value))
        for name, value in attrs.asdict(ResilientConfig()).items()
    ]


def test_every_metric_is_told() -> None:
    text = (DOCS / "resilient-client.md").read_text()
    assert [name for name in attrs.asdict(ClientMetrics()) if f"`{name}`" not in text] == ["transport"]


def test_all_that_is_counted_is_told_by_its_field_kind_and_metric() -> None:
    text = (DOCS / "telemetry.md").read_text(encoding="utf-8")
    snapshots = (ServerSnapshot, ClientSnapshot, ResilientSnapshot, EndpointSnapshot)
    names = {field.name for kind in snapshots for field in attrs.fields(kind)}
    for kinds in (CloseReason, RequestFailure, CallFailure, Refusal, TimeoutKind):
        names |= set(kinds)
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_the_table_of_metrics_has_each_metric_with_its_type() -> None:
    text = (DOCS / "telemetry.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `(trio_ipc_(?:server|resilient)_\w+)` \| (?:`(\w+)`)? ?\| (\w+)(?:, by `(\w+)`)? \|",
        text,
        re.MULTILINE,
    )
    told = {(name, kind, label) for *names, kind, label in rows for name in names if name}
    assert told == {
        (
            "_".join(filter(None, ("trio_ipc", metric.side, metric.name, metric.unit)))
            + ("_total" if metric.kind is Kind.COUNTER else ""),
            metric.kind.name.lower(),
            metric.label,
        )
        for metric in METRICS
    }


def test_the_log_has_the_loggers_and_fields_that_are_told() -> None:
    text = (DOCS / "telemetry.md").read_text(encoding="utf-8").partition("## Logging")[2]
    told = set(re.findall(r"^\| `(trio_ipc\.[\w.]+)` \|", text, re.MULTILINE))
    package = Path(trio_ipc.__file__).parent
    logging = {file for file in package.rglob("*.py") if "_log = Log(__name__)" in file.read_text("utf-8")}
    names = {f"trio_ipc.{file.relative_to(package).parts[0].removesuffix('.py')}" for file in logging}
    assert told == names
    fields = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    for file in logging:
        for given in re.findall(r"\{[^{}]*\"endpoint\": [^{}]*\}", file.read_text("utf-8")):
            assert set(re.findall(r"\"(\w+)\": ", given)) <= {*fields}, file


def test_what_the_package_needs_is_told() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.split(r"[<>=!~ ;]", requirement)[0] for requirement in project["dependencies"]}
    text = (DOCS / "getting-started.md").read_text(encoding="utf-8")
    told = re.search(r"^It needs (.*)$", text, re.MULTILINE)
    assert told is not None
    assert set(re.findall(r"`([\w-]+)`", told[1])) == needed


def test_the_packages_are_those_of_the_architecture_page() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text.partition("## Rules")[0], re.MULTILINE) == PACKAGES


def test_what_a_channel_needs_of_a_connection_is_told() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("primitives (`Duplex`)")[2].partition("\n### ")[0]
    told = {
        name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in row.split("`")[1::2]
    }
    assert told == {name for name, thing in vars(Duplex).items() if inspect.isfunction(thing)}
