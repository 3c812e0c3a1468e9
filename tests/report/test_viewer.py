"""The page on which cases are looked at in 3-D, in a browser and without a network."""

import gzip
import hashlib
import re
from importlib.resources import files
from pathlib import Path

import pytest
from playwright.sync_api import expect

from mis.errors import MisError
from mis.report.html import write_report
from mis.report.viewer.page import viewer_page
from tests.browser import PATIENCE_MS, open_page

NIIVUE_SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
"""Of niivue.umd.js in the package @niivue/niivue 0.69.0."""


def wait_until_shown(page, text):
    page.wait_for_function("text => document.body.dataset.shown === text", arg=text, timeout=PATIENCE_MS)


def green_pixels(page):
    """Return how many pixels of the canvas are green, as a viewer sees them."""
    script = """() => {
        viewer.drawScene();
        const canvas = document.getElementById("canvas"), copy = document.createElement("canvas");
        [copy.width, copy.height] = [canvas.width, canvas.height];
        const pen = copy.getContext("2d");
        pen.drawImage(canvas, 0, 0);
        const data = pen.getImageData(0, 0, copy.width, copy.height).data;
        let green = 0;
        for (let at = 0; at < data.length; at += 4) green += data[at + 1] > Math.max(data[at], data[at + 2]) + 40;
        return green;
    }"""
    return page.evaluate(script)


@pytest.mark.slow
def test_cases_are_drawn_with_what_is_chosen(run, tmp_path):
    run.pictures = ["BRATS_003", "BRATS_011"]
    write_report(run.write(), tmp_path / "report", data_root="data/raw/phantom")
    with open_page() as page:
        page.set_viewport_size({"width": 640, "height": 480})  # drawn by the processor
        asked, errors = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((tmp_path / "report" / "report.html").as_uri())
        page.get_by_role("link", name="Look at them in 3-D").click()
        wait_until_shown(page, "BRATS_011 FLAIR prediction")  # the worst case comes first
        expect(page.locator("#scores")).to_have_text("mean Dice 0.600")
        expect(page.locator("#phantom")).to_be_visible()
        expect(page.locator("#legend")).to_have_text(re.compile("WT.*TC.*ET"))
        assert page.evaluate("viewer.volumes.length") == 2
        drawn = green_pixels(page)
        assert drawn > 100, "the whole tumour is green, over a grey brain"

        page.get_by_label("Case").select_option("BRATS_003")
        page.get_by_label("T1gd").check()
        page.get_by_label("where they differ").check()
        wait_until_shown(page, "BRATS_003 T1gd difference")
        expect(page.locator("#legend")).to_have_text(re.compile("missed.*false.*another region"))

        page.get_by_label("nothing").check()
        wait_until_shown(page, "BRATS_003 T1gd ")
        assert page.evaluate("viewer.volumes.length") == 1
        assert green_pixels(page) < drawn / 10, "without an overlay nothing is green"
        assert not errors
        assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)


def test_niivue_is_what_was_published_and_its_licence_goes_with_the_page(run):
    folder = run.write() / "evaluate" / "volumes" / "BRATS_003"
    page = viewer_page([folder], ["WT"], {}, phantom=False)
    licence = files("mis.report.viewer").joinpath("LICENSE").read_text(encoding="utf-8")
    assert licence in page
    assert "BSD 2-Clause License" in licence
    library = gzip.decompress(files("mis.report.viewer").joinpath("niivue.js.gz").read_bytes())
    assert hashlib.sha256(library).hexdigest() == NIIVUE_SHA256
    assert len(page) < 2.5e6


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(b"no image")], ids=["missing", "damaged"]
)
def test_a_volume_that_is_not_as_it_was_written_is_told_in_one_line(run, tmp_path, damage):
    damage(run.write() / "evaluate" / "volumes" / "BRATS_003" / "truth.nii.gz")
    with pytest.raises(MisError, match=r"truth.nii.gz must be a volume .*dvc repro --force --single-item evaluate"):
        write_report(run.folder, tmp_path / "report", data_root="data")
    assert not (tmp_path / "report").exists()


def test_what_stands_in_the_page_cannot_end_its_script(run):
    folder = run.write() / "evaluate" / "volumes" / "BRATS_003"
    evil = folder.rename(folder.with_name("<script>alert(1)<"))
    page = viewer_page([evil], ["WT"], {evil.name: "</script>"}, phantom=False)
    assert page.count("</script>") == 2
    assert "<script>alert" not in page
    assert "SYNTHETIC" not in page
