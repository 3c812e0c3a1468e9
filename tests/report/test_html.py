import base64
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from mis import style
from mis.errors import MisError
from mis.report.html import write_report

PICTURES = {"learning_curves", "trials", "slice", "parallel_coordinates", "test_dice", "speedup", "timeline"}


@pytest.fixture(autouse=True)
def _coarse(monkeypatch):
    """Draw small: what is looked at here is not the pixels."""
    monkeypatch.setattr(style, "PIXELS_PER_INCH", 30)


class Page(HTMLParser):
    """What a browser would see of the page."""

    def __init__(self, html):
        super().__init__()
        self.html = html
        self.tags = []
        self.rows = []
        self.words = []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        self.words.append(data)
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {data.strip()}".strip()

    def all(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


def report(run, tmp_path, data_root="data/raw/Task01_BrainTumour"):
    path = write_report(run.write(), tmp_path / "report", data_root=data_root)
    return Page(path.read_text(encoding="utf-8"))


def test_every_trial_and_case_is_in_the_page(run, tmp_path):
    page = report(run, tmp_path)
    names = {row[0].split()[0] for row in page.rows if row}
    assert {"000", "001", "002", "BRATS_003", "BRATS_011", "mean", "reference", "data", "experiment"} <= names
    assert ["001 best", "completed", "2"] in [row[:3] for row in page.rows]


def test_the_page_stands_alone(run, tmp_path):
    page = report(run, tmp_path)
    for tag, attrs in page.tags:
        assert tag not in ("script", "iframe", "object", "embed", "base")
        assert not any(name.startswith("on") for name in attrs)
        for name in ("src", "srcset", "href", "data", "poster", "action"):
            assert attrs.get(name, "#").startswith(("#", "data:")) or attrs[name] == "cases.html", (tag, attrs)
    assert "@import" not in page.html
    assert "url(" not in page.html


def test_the_pictures_are_in_the_page_and_beside_it(run, tmp_path):
    images = report(run, tmp_path).all("img")
    embedded = [base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in images]
    beside = {path.stem: path.read_bytes() for path in (tmp_path / "report").glob("*.png")}
    assert set(beside) == PICTURES
    sheets = [(run.folder / "evaluate" / "sheets" / f"{name}.png").read_bytes() for name in run.pictures]
    assert sorted(embedded) == sorted([*beside.values(), *sheets])
    assert all(png.startswith(b"\x89PNG") for png in embedded)


def test_every_picture_has_words_and_a_size(run, tmp_path):
    for image in report(run, tmp_path).all("img"):
        assert len(image["alt"]) > 30
        assert int(image["width"]) > 0
        assert int(image["height"]) > 0


def test_under_each_figure_stands_what_it_was_measured_on(run, tmp_path):
    for number, facts in enumerate(run.measured.values()):
        facts["machine"] = {**facts["machine"], "cpu": f"CPU{number}"}
    page = report(run, tmp_path)
    shown = page.html.split("<figure")[1:]
    assert len(shown) == 12
    for figure in shown:
        caption = figure.split("<figcaption>")[1].split("</figcaption>")[0]
        assert caption.count("Measured on") == 1
        assert "commit 0123456" in caption
    stages = [next(n for n in range(4) if f"CPU{n}," in figure) for figure in shown]
    assert stages == [0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3]


def test_headings_and_contents_agree(run, tmp_path):
    page = report(run, tmp_path)
    assert len(page.all("h1")) == 1
    targets = {attrs["href"].removeprefix("#") for attrs in page.all("a") if attrs["href"] != "cases.html"}
    assert targets == {attrs["id"] for name in ("h2", "h3") for attrs in page.all(name)}
    assert page.all("html") == [{"lang": "en"}]


def test_what_comes_from_files_is_escaped(run, tmp_path):
    run.trials.append(run.trial("003", "failed", [], 0.5, "<b>$x", error="<script>alert('1')</script> & more"))
    page = report(run, tmp_path, data_root="data/<i>")
    assert not page.all("script")
    assert not page.all("i")
    assert "<script>alert('1')</script> & more" in page.text
    assert "data/<i>" in page.text


@pytest.mark.parametrize(
    ("root", "said"), [("data/raw/phantom", True), ("data/raw/phantom/", True), ("/d/Task01", False)]
)
def test_a_phantom_is_announced(run, tmp_path, root, said):
    page = report(run, tmp_path, data_root=root)
    assert ("The data set is a phantom." in page.text) is said
    assert "say nothing about BraTS" in page.text


def test_the_paper_s_figures_are_named_as_theirs(run, tmp_path):
    text = report(run, tmp_path).text
    assert "DistMIS reports a speed-up of ×12 by data parallelism and of ×14 by experiment parallelism" in text  # noqa: RUF001
    assert "They are theirs" in text


def test_a_single_region(make_run, tmp_path):
    page = report(make_run(regions=["WT"]), tmp_path)
    assert "TC" not in page.text
    assert ["BRATS_003", "0.800", "0.300"] in page.rows


def test_one_worker_only(make_run, tmp_path):
    assert "no speed-up to report" in report(make_run(devices=[1], rounds=1), tmp_path).text


def test_many_devices(make_run, tmp_path):
    page = report(make_run(devices=[1, 2, 4, 8, 16, 32]), tmp_path)
    assert len([row for row in page.rows if row[:1] == ["data parallelism"]]) == 5


def test_a_search_without_an_epoch(run, tmp_path):
    run.trials = [run.trial("000", "failed", [], 0.5, "group", error="no memory")]
    page = report(run, tmp_path)
    assert "No trial had an epoch" in page.text
    assert "no memory" in page.text
    assert not (tmp_path / "report" / "trials.png").exists()


def test_a_search_of_nothing(run, tmp_path):
    for line, _ in run.trials:
        del line["train.learning_rate"], line["model.norm"]
    assert "001 best" in [row[0] for row in report(run, tmp_path).rows]
    assert not (tmp_path / "report" / "slice.png").exists()


def test_a_single_trial_of_a_single_epoch(run, tmp_path):
    run.trials = [run.trial("000", "completed", [0.3], 0.5, "group")]
    run.history = run.history[:1]
    run.cases = run.cases[:1]
    assert "the best of 1 trial." in report(run, tmp_path).text


def test_values_that_are_not_numbers(run, tmp_path):
    nan = float("nan")
    run.history.append(run.epoch(4, nan))
    run.trials.append(run.trial("003", "completed", [nan, nan], 0.5, "group"))
    run.cases.append(run.case("BRATS_020", nan, nan))
    page = report(run, tmp_path)
    assert "nan" not in page.text.lower().split()
    assert "epoch 2 of 4" in page.text


def test_the_same_results_make_the_same_report(run, tmp_path):
    results = run.write()
    for name in ("one", "two"):
        write_report(results, tmp_path / name, data_root="data")
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert set(one) == {"report.html", "cases.html", *(f"{name}.png" for name in PICTURES)}


def test_a_missing_file_leaves_the_old_report(run, tmp_path):
    report(run, tmp_path)
    before = (tmp_path / "report" / "report.html").read_bytes()
    (run.folder / "scaling" / "comparison.json").unlink()
    with pytest.raises(MisError, match=r"comparison\.json.*dvc repro scaling"):
        write_report(run.folder, tmp_path / "report", data_root="data")
    assert (tmp_path / "report" / "report.html").read_bytes() == before


def test_a_report_needs_none_of_the_heavy_libraries():
    code = "import sys, mis.report.html; print({'tensorflow', 'keras', 'ray', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def test_folds_are_told_by_what_they_reach_out_of_fold(run, tmp_path):
    run.trained = {"dice": 0.7, "fold_dice": {"0": 0.6, "1": 0.8}, "folds": 2}
    run.chosen |= {"out_of_fold/dice": 0.71, **{f"out_of_fold/dice_{name}": 0.72 for name in run.regions}}
    page = report(run, tmp_path)
    assert "the ensemble of 2 folds" in page.html
    assert "Dice of 0.710 (WT 0.720, TC 0.720, ET 0.720) out of fold" in page.html
    assert "A training for each of 2 folds" in page.html
    assert "One training with" not in page.html


def test_lesions_are_told_beside_the_dice(run, tmp_path):
    run.chosen |= {f"lesion_dice_{name}": 0.4 for name in run.regions}
    run.chosen |= {f"lesions_false_{name}": 3.25 for name in run.regions}
    page = report(run, tmp_path)
    assert (
        "Lesion by lesion its Dice is WT 0.400, TC 0.400, ET 0.400, with so many false lesions a case: WT 3.2"
        in page.html
    )
