"""The check of a dataset as a page."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from nnunet_3dct.data.checks.dataset import check_dataset
from nnunet_3dct.report.dataset_page import write_dataset_page
from tests.data.checks.makers import SPACING, change, ct, files_of, write_ct_dataset
from tests.report.test_browser import browser, needs_browser, resize  # noqa: F401
from tests.utils import empty, truncate, write_volume


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    folder = write_ct_dataset(root / "Dataset001_<CT>", training=10, validation=1)
    change(files_of(folder, "case_001")[1], np.zeros_like)
    change(files_of(folder, "case_002")[0], lambda a: (a + 1024).astype(np.uint16))
    truncate(files_of(folder, "case_003")[0], 0.5)
    empty(files_of(folder, "case_004")[0])
    write_volume(files_of(folder, "case_005")[1], ct(5)[1], (0.8, 0.8, 9))
    image = ct(6)[0].astype(np.float32)
    image[0, 0, :3] = np.nan
    write_volume(files_of(folder, "case_006")[0], image, SPACING)
    assert write_dataset_page(check_dataset(folder), root / "check.html") == 5
    return root / "check.html"


def articles(page: Path) -> dict[str, str]:
    """Section of each named case."""
    found = re.findall(r'<article id="[^"]*".*?</article>', page.read_text(encoding="utf-8"), re.DOTALL)
    return {re.search(r"<h3[^>]*>([^ <]+)", text)[1]: text for text in found}  # type: ignore[index]


def test_every_named_case_has_pictures_or_a_reason(page: Path) -> None:
    cases = articles(page)
    assert list(cases) == [f"case_{n:03d}" for n in range(1, 7)]
    for case, text in cases.items():
        assert text.count("data:image/png") == (0 if case == "case_004" else 3), case
    assert "0 bytes" in cases["case_004"] and "Not shown" in cases["case_004"]
    assert "the label does not lie on the image" in cases["case_005"]
    assert "empty label" in cases["case_001"] and "looks raw" in cases["case_002"]
    assert cases["case_002"].count('class="outline"') >= 3 and 'class="outline"' not in cases["case_005"]


def test_is_one_file_with_escaped_names_and_links_that_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "Dataset001_&lt;CT&gt;" in text and "<CT>" not in text
    assert not re.findall(r'(?:src|href)="(?!#|data:)', text)
    targets, anchors = set(re.findall(r'href="#([^"]+)"', text)), set(re.findall(r'id="([^"]+)"', text))
    assert targets <= anchors and {"found", "cases", "all-cases"} <= targets


def test_sound_dataset_has_a_page_too(tmp_path: Path) -> None:
    folder = write_ct_dataset(tmp_path / "Dataset001_CT", training=10, validation=0, shape=(5, 10, 10))
    assert write_dataset_page(check_dataset(folder), tmp_path / "check.html") == 0
    assert "<p>Nothing.</p>" in (tmp_path / "check.html").read_text()


@needs_browser
@pytest.mark.parametrize("width", [1280, 400])
def test_in_a_browser(browser, page: Path, width: int) -> None:  # noqa: F811
    resize(browser, width)
    browser.get_log("browser")
    browser.get(page.as_uri())
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    images = browser.find_elements("css selector", "article svg image")
    assert len(images) == 15 and all(i.size["width"] > 50 and i.size["height"] > 20 for i in images)
    links = [a.get_attribute("textContent") for a in browser.find_elements("css selector", ".cases-of a")]
    assert {"case_001", "case_006"} <= set(links)
