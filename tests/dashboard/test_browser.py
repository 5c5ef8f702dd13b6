"""The dashboard as a reader sees it: the real server in a real browser, on this machine only."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import invented_store
import pytest

from dashboard import app, reading

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium)"),
]
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
PATIENCE = 60_000  # milliseconds; a busy machine is slow, not broken


@contextlib.contextmanager
def serving(home: Path) -> Iterator[str]:
    """Run the dashboard on a free port of this machine, as the command line does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [sys.executable, "-m", "streamlit", "run", str(app.PATH), "--server.address", "localhost"]
    arguments += ["--server.port", str(port), "--server.headless", "true", "--server.fileWatcherType", "none"]
    arguments += ["--browser.gatherUsageStats", "false", "--", str(home)]
    root = str(app.PATH.parents[1])
    server = subprocess.Popen(
        arguments,
        cwd=root,
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://localhost:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/_stcore/health"):  # noqa: S310
                break
            assert server.poll() is None, "the server ended by itself"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield opened
        opened.close()


@pytest.fixture
def page(browser) -> Iterator[object]:
    """A page that remembers what the browser complained about."""
    opened = browser.new_page(viewport={"width": 1280, "height": 1500})
    opened.set_default_timeout(PATIENCE)
    playwright.expect.set_options(timeout=PATIENCE)
    opened.complaints = []
    opened.questions = []
    opened.on("websocket", lambda socket: socket.on("framesent", lambda sent: opened.questions.append(sent)))
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.on("console", lambda message: complain(opened.complaints, message))
    yield opened
    opened.close()


def complain(complaints: list[str], message: object) -> None:
    # A deep link makes Streamlit's client look for two addresses below the page first; it finds them at the root.
    known = message.location["url"].endswith(("/_stcore/health", "/_stcore/host-config"))
    if message.type == "error" and not known:
        complaints.append(message.text)


def test_every_page_and_the_badge_open_in_a_browser_and_names_are_shown_as_they_were_written(
    page, finished_home: Path
) -> None:
    expect = playwright.expect
    nasty = invented_store.NASTY
    with serving(finished_home) as address:
        page.goto(address)
        expect(page.get_by_role("heading", name="Which position scheme <should>")).to_be_visible()
        expect(page.locator("ul.verdicts")).to_contain_text(f"{nasty} worse: 0.1554 bits per byte more")
        expect(page.locator(".js-plotly-plot").first).to_contain_text(nasty)
        expect(page.locator("p.badge")).to_contain_text("identical arms are called different")
        page.get_by_text("How this is known").click()
        expect(page.locator(".js-plotly-plot", has_text="level asked for")).to_be_visible()
        for title, seen in {
            "Learning curves": "A thin line is one seed",
            "Seeds and items": "Where the arm does best",
            "Runs": "Grouped by everything except the seed",
            "Plan and provenance": "Declared before the first result",
        }.items():
            page.get_by_role("link", name=title).click()
            expect(page.get_by_text(seen).first).to_be_visible()
            if title in ("Learning curves", "Seeds and items"):
                expect(page.locator(".js-plotly-plot").first).to_contain_text(nasty)
            expect(page.get_by_test_id("stException")).to_have_count(0)
            expect(page.get_by_test_id("stAlert")).to_have_count(0)
        page.goto(f"{address}/runs")
        expect(page.get_by_text("All 25 runs, one by one")).to_be_visible()
        assert page.locator(".workbench b", has_text=re.compile("^x$")).count() == 0
    assert page.complaints == []


def test_from_an_empty_folder_to_its_last_run_a_sweep_is_followed_without_reloading(page, tmp_path: Path) -> None:
    expect = playwright.expect
    with serving(tmp_path / "home") as address:
        page.goto(address)
        expect(page.get_by_text("There is no plan here yet")).to_be_visible()
        page.evaluate("window.stayed = true")
        store, document = invented_store.write(tmp_path / "home", runs=12)
        expect(page.get_by_text("12 of 25 runs, live")).to_be_visible()
        invented_store.commit(store, document, document["trials"][12])
        expect(page.get_by_text("13 of 25 runs, live")).to_be_visible()
        expect(page.locator("ul.verdicts")).to_have_count(0)
        for trial in document["trials"][13:]:
            invented_store.commit(store, document, trial)
        expect(page.locator("ul.verdicts li")).to_have_count(4)
        expect(page.get_by_text("25 of 25 runs · bits per byte")).to_be_visible()
        assert page.evaluate("window.stayed"), "the page was reloaded"
        for _ in range(10):  # a question may have been on its way, for longer where the machine is busy
            asked = len(page.questions)
            page.wait_for_timeout(1500 * reading.LOCAL_PAUSE)
            if len(page.questions) == asked:
                break
        else:
            pytest.fail("a complete plan is asked for again and again")
    assert [text for text in page.complaints if "WebSocket" not in text] == []
