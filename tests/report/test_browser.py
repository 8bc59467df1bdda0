"""The report in a real browser, opened from disk."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.report.inputs import SHAPE, Inputs

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_chromium(which: Callable[[str], str | None] = shutil.which) -> tuple[str, str, str]:
    """Paths of browser and driver, and why there is none of them; Selenium is never to look for one on the network."""
    browser = next((path for name in BROWSERS if (path := which(name))), None)
    driver = which("chromedriver")
    if browser is None:
        return "", "", f"no Chromium on this machine: none of {', '.join(BROWSERS)} on the path"
    if driver is None:
        return "", "", f"{browser} is there but no chromedriver on the path; install the one of the same version"
    return browser, driver, ""


CHROMIUM, DRIVER, MISSING = find_chromium()
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
# text and background colour of everything that holds text
COLOURS = """
    const text = 'p, a, th, td, dt, dd, small, caption, figcaption, summary, .mark, li, h1, h2, h3';
    const paper = e => {
        for (; e; e = e.parentElement) {
            const colour = getComputedStyle(e).backgroundColor;
            if (colour != 'rgba(0, 0, 0, 0)') return colour;
        }
    };
    return [...document.querySelectorAll(text)].map(e => [getComputedStyle(e).color, paper(e), e.tagName]);
"""

needs_browser = pytest.mark.skipif(bool(MISSING), reason=MISSING or "Chromium and its driver are there")


def test_browser_or_driver_that_is_missing_is_the_reason_to_skip() -> None:
    found = {"google-chrome": "/opt/chrome", "chromedriver": "/opt/chromedriver"}
    assert find_chromium(found.get) == ("/opt/chrome", "/opt/chromedriver", "")
    assert "no Chromium on this machine" in find_chromium({}.get)[2]
    assert "/opt/chrome is there but no chromedriver" in find_chromium({"google-chrome": "/opt/chrome"}.get)[2]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browser")
    cases = ("a" * 60, "case <1>", "case_2", "case_3", "case_4", "case_5")
    inputs = Inputs(root, cases=cases).write()
    evidence = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    inputs.volume("predictions/evidence", "case_2", evidence)
    path = root / "report.html"
    path.write_text(inputs.html(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    from selenium import webdriver
    from selenium.common.exceptions import SessionNotCreatedException
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    try:
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    except SessionNotCreatedException as error:
        pytest.skip(f"{CHROMIUM} and {DRIVER} do not go together: {error.msg}")
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, report):
    resize(browser, 1280)
    browser.get(report.as_uri())
    return browser


def resize(browser, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


@needs_browser
def test_loads_without_errors_and_asks_for_nothing_else(browser, report):
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what was before
    browser.get(report.as_uri())
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:image/png")] == [report.as_uri()]


@needs_browser
def test_headings_and_pictures_are_there(page):
    headings = [h.text for h in page.find_elements("css selector", "h1, h2")]
    for expected in ("Segmentation and class report", "Segmentation", "Classes", "All cases", "Pictures of the cases"):
        assert expected in headings
    assert [h.text for h in page.find_elements("css selector", "article h3")][1] == "case <1>"
    images = page.find_elements("css selector", "article svg image")
    assert len(images) == 6 * 3 + 3
    # of the layers that <use> draws again and of the pictures themselves
    assert all(i.size["width"] > 50 and i.size["height"] > 20 for i in images)


def focused(page) -> str | None:
    return page.execute_script("return document.activeElement.getAttribute('href')")


@needs_browser
def test_links_are_reached_and_followed_by_keyboard(page):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(key: str) -> None:
        ActionChains(page).send_keys(key).perform()

    press(Keys.TAB)
    assert focused(page) == "#content"
    assert page.execute_script("return document.activeElement.getBoundingClientRect().left") >= 0  # appears with focus
    assert page.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    reached = []
    while focused(page) != "#case-2" or "#case-1" not in reached:
        reached.append(focused(page))
        assert len(reached) < 60, reached
        press(Keys.TAB)
    assert {"#content", "#segmentation", "#classes", "#all-cases"} <= set(reached)
    press(Keys.ENTER)
    assert page.current_url.endswith("#case-2")
    top = page.execute_script("return document.getElementById('case-2').getBoundingClientRect().top")
    assert abs(top) < 5


@needs_browser
@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_wider_than_the_window(page, width):
    resize(page, width)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    outside = page.execute_script(
        "return [...document.querySelectorAll('figure, p, h1, h2, h3, li, .scroll, dl')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert outside == []


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(page, scheme):
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    colours = page.execute_script(COLOURS)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    pairs = {(text, paper, name) for text, paper, name in colours}
    assert {pair: contrast(pair[0], pair[1]) for pair in pairs if contrast(pair[0], pair[1]) < 4.5} == {}


def contrast(first: str, second: str) -> float:
    """Contrast ratio of WCAG 2 between two ``rgb(...)`` colours."""
    lights = []
    for colour in (first, second):
        parts = np.array([float(v) for v in colour[colour.index("(") + 1 : -1].split(",")[:3]]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        lights.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@needs_browser
def test_prints_each_case_on_pages_of_its_own(page):
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    breaks = page.execute_script(
        "return [...document.querySelectorAll('article')].map(e => getComputedStyle(e).breakBefore)"
    )
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert breaks == ["page"] * 6
    pdf = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})["data"])
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") >= 6 + 2
