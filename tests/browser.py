"""The MLflow UI in a real browser: what a person must be able to see there.

The assertions take a page and an address, so that they hold for any store: one that a test has
filled, or the one that the pipeline has.
"""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# No sandbox, because containers run as root; no service of the browser's own, because there may be no network.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--use-angle=swiftshader",  # WebGL by the processor
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 30_000


@contextmanager
def open_page() -> Iterator[Page]:
    """Open an empty page in headless Chromium; without one, skip the test, or fail if MIS_REQUIRE_BROWSER=1."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        reason = f"none of {', '.join(PROGRAMS)} is installed"
        (pytest.fail if os.environ.get("MIS_REQUIRE_BROWSER") == "1" else pytest.skip)(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, headless=True, args=ARGUMENTS)
        try:
            page = browser.new_page(viewport={"width": 1600, "height": 1200})
            page.set_default_timeout(PATIENCE_MS)
            yield page
        finally:
            browser.close()


def assert_study_with_trials(page: Page, runs_url: str, study: str, trials: Sequence[str]) -> None:
    """Assert that the table of runs has the study, and the trials below it.

    They are below it if they come when its row is opened and go when it is closed. Of several
    studies of that name the newest is looked at; the page stays with its row open.
    """
    page.goto(runs_url)
    button = page.get_by_role("gridcell").filter(has=run_link(page, study)).first.get_by_role("button")
    expect(button).to_be_visible(timeout=PATIENCE_MS)
    for count in (0, 1, 0):  # closed, open, closed
        for trial in trials:
            expect(run_link(page, trial)).to_have_count(count, timeout=PATIENCE_MS)
        button.click()
    expect(run_link(page, trials[-1])).to_be_visible(timeout=PATIENCE_MS)


def assert_curves(
    page: Page, charts_url: str, metric: str, runs: Sequence[str], patience_ms: float = PATIENCE_MS
) -> None:
    """Assert that one chart shows the metric as a line for each run, with its name in the legend."""
    page.goto(charts_url)
    card = page.get_by_test_id("experiment-view-compare-runs-card").filter(has=page.get_by_text(metric, exact=True))
    expect(card).to_have_count(1, timeout=PATIENCE_MS)
    card.scroll_into_view_if_needed()  # charts out of sight are not drawn
    for run in runs:
        expect(card.get_by_text(f"{run} ({metric})", exact=True)).to_have_count(1, timeout=patience_ms)
    deadline = time.monotonic() + patience_ms / 1000
    while len(lines := drawn_lines(card)) != len(runs) and time.monotonic() < deadline:
        page.wait_for_timeout(100)
    assert len(lines) == len(runs), f"{metric}: {len(lines)} lines are drawn for {len(runs)} runs"


def assert_study_figures(page: Page, figures_url: str, headings: Sequence[str]) -> None:
    """Assert that the study's interactive figures are drawn in the page of its artifacts."""
    page.goto(figures_url)
    frame = page.frame_locator("iframe")
    for heading in headings:
        expect(frame.get_by_role("heading", name=heading)).to_be_visible(timeout=PATIENCE_MS)
    expect(frame.locator(".js-plotly-plot .main-svg").first).to_be_visible(timeout=PATIENCE_MS)


def assert_speedup_curves(page: Page, charts_url: str, runs: Sequence[str] = ("data", "experiment")) -> None:
    """Assert that the speed-up over devices is drawn for each mode."""
    assert_curves(page, charts_url, "speedup", runs)


def assert_trials_compared(page: Page, compare_url: str, trials: Sequence[str], params: Sequence[str]) -> None:
    """Assert that the comparison names the trials and has an axis for each parameter that differs."""
    page.goto(compare_url)
    expect(page.get_by_text(f"Comparing {len(trials)} Runs")).to_be_visible(timeout=PATIENCE_MS)
    for trial in trials:
        expect(page.get_by_role("cell", name=trial, exact=True).first).to_be_visible(timeout=PATIENCE_MS)
    for param in params:
        axis = page.locator(".parcoords .axis-title").get_by_text(param, exact=True)
        expect(axis.first).to_be_visible(timeout=PATIENCE_MS)


def run_link(page: Page, name: str) -> Locator:
    """Return the link to a run in the table."""
    return page.get_by_role("link", name=name, exact=True)


def drawn_lines(card: Locator) -> set[tuple[str, str]]:
    """Return the colour and the path of a chart's lines, one for each run; a point alone makes no line.

    A run has two lines of one colour, as measured and smoothed, which lie on each other until the
    smoothing is turned up. Two runs may have one colour: MLflow takes it from their ids.
    """
    lines = card.locator(".scatterlayer path.js-line").evaluate_all(
        "paths => paths.map(path => [path.style.stroke, path.getAttribute('d') || ''])"
    )
    return {(colour, path) for colour, path in lines if any(command in path for command in "LHVC")}
