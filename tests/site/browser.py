"""Read a built site with Chromium: ``python -m tests.site.browser build/docs``. `make docs-browser` does it.

Every page opens without an error, fits on a narrow screen and on a wide one, the search finds what readers
look for, and the button beside a program copies it. The site comes from a server of this process, on the
loopback.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import sync_playwright

#: What readers look for, and a page that has to be among the first ten that are found.
TERMS: Final = {
    "systemd": "services.html",
    "named pipe": "windows.html",
    "castagnoli": "compatibility.html",
    "max_connections": "configuration.html",
    "circuit breaker": "resilient-client.html",
    "prometheus": "telemetry.html",
    "asyncio": "asyncio.html",
    "IpcConfig": "reference/trio_ipc.html",
    "switch_transport": "rollback.html",
    "little-endian": "wire-protocol.html",
}

WIDTHS: Final = (360, 1400)

#: How far a page is wider than its window, and what sticks out of it.
OVERFLOW: Final = """() => {
    const width = document.documentElement.clientWidth;
    const over = document.documentElement.scrollWidth - width;
    const scrolls = (node) => node && node !== document.documentElement &&
        (["auto", "scroll", "hidden"].includes(getComputedStyle(node).overflowX) ||
            scrolls(node.parentElement));
    const wide = [...document.querySelectorAll("main *, article *")].filter(
        (node) => node.getBoundingClientRect().right > width + 1 && !scrolls(node.parentElement));
    return [over, wide.slice(0, 3).map((node) => node.outerHTML.slice(0, 120))];
}"""


class Silent(http.server.SimpleHTTPRequestHandler):
    """Files, without a line for each."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the standard library
        pass


@contextmanager
def served(site: Path) -> Iterator[str]:
    """The site's address on this machine, for a block."""
    handler = functools.partial(Silent, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def watch(page: Any, problems: list[str]) -> None:
    """Note all that a browser complains of."""

    def said(message: Any) -> None:
        if message.type == "error":
            problems.append(f"{page.url}: the console says {message.text}")

    def answered(response: Any) -> None:
        if response.status >= 400:
            problems.append(f"{page.url}: {response.url} is answered by {response.status}")

    page.on("console", said)
    page.on("pageerror", lambda error: problems.append(f"{page.url}: {error}"))
    page.on("requestfailed", lambda request: problems.append(f"{page.url}: {request.url} did not come"))
    page.on("response", answered)


def read_pages(page: Any, base: str, site: Path, problems: list[str]) -> int:
    """Open every page; return how many there are."""
    files = sorted(site.rglob("*.html"))
    for file in files:
        page.goto(f"{base}/{file.relative_to(site).as_posix()}")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            over, wide = page.evaluate(OVERFLOW)
            if over > 0:
                problems.append(f"{page.url}: {over} px too wide for {width} px: {wide}")
    return len(files)


def search(page: Any, base: str, problems: list[str]) -> None:
    """Look for each term."""
    for term, wanted in TERMS.items():
        page.goto(f"{base}/search.html?q={term.replace(' ', '+')}")
        page.wait_for_function(
            "document.querySelector('#search-results .search-summary')?.innerText.match(/finished|found/)"
        )
        links = page.eval_on_selector_all(
            "#search-results ul.search li > a", "found => found.slice(0, 10).map(link => link.href)"
        )
        found = [link.partition("?")[0].partition("#")[0].removeprefix(f"{base}/") for link in links]
        if wanted not in found:
            problems.append(f"a search for {term!r} finds {found}, and not {wanted}")
        # The page gets each page that it found, for its summary; to leave it meanwhile would cut that off.
        page.wait_for_load_state("networkidle")


def copy(page: Any, base: str, problems: list[str]) -> None:
    """Copy the first program of a page."""
    page.goto(f"{base}/getting-started.html")
    program = page.locator("div.highlight-python").first
    program.hover()
    program.locator("button.copybtn").click()
    text = program.locator("pre").inner_text().strip()
    copied = page.evaluate("navigator.clipboard.readText()").strip()
    if not text or copied != text:
        problems.append(f"the button copies {copied!r}, and not {text!r}")


def take_pictures(page: Any, base: str, directory: Path) -> None:
    """Save what a reader sees, in both themes, to be looked at."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in (
        "index",
        "architecture",
        "resilient-client",
        "configuration",
        "rollback",
        "reference/trio_ipc",
    ):
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 900})
                page.goto(f"{base}/{name}.html")
                picture = directory / f"{name.replace('/', '-')}-{theme}-{width}.png"
                page.screenshot(path=str(picture), full_page=name in {"resilient-client", "configuration"})


def main() -> int:
    """Print what is wrong, and return the exit status."""
    parser = argparse.ArgumentParser(prog="tests.site.browser", description=__doc__)
    parser.add_argument("site", type=Path, help="what `make docs` has built")
    parser.add_argument("--browser", default=shutil.which("chromium"), help="path of Chromium")
    parser.add_argument("--pictures", type=Path, help="a folder for pictures of some pages")
    options = parser.parse_args()
    if options.browser is None:
        print("there is no chromium on the PATH: install Debian's package of that name", file=sys.stderr)
        return 1
    problems: list[str] = []
    with served(options.site.resolve()) as base, sync_playwright() as play:
        # root may not use the browser's sandbox, and the pages are our own
        browser = play.chromium.launch(executable_path=options.browser, args=["--no-sandbox"])
        context = browser.new_context()
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=base)
        page = context.new_page()
        watch(page, problems)
        pages = read_pages(page, base, options.site.resolve(), problems)
        search(page, base, problems)
        copy(page, base, problems)
        if options.pictures is not None:
            take_pictures(page, base, options.pictures)
        browser.close()
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{pages} pages and {len(TERMS)} searches in a browser, {len(problems)} problems")
    return 1 if problems or not pages else 0


if __name__ == "__main__":
    sys.exit(main())
