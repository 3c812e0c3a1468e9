"""Run the pipeline on a clean clone of this commit, and write the figures and pictures of README.md.

`python benchmarks/readme.py` from the repository, with nothing uncommitted but its results; about five
minutes. It needs Chromium, for the picture. It compares with nothing else: it prints the lines that it has written.
"""

import csv
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from page import clean_commit, write_figures
from playwright.sync_api import Page, sync_playwright

from mis.errors import MisError
from mis.files import copy_file, new_file, read_json
from mis.ports import free_port
from mis.scaling.plan import MODE_NAMES
from mis.settings import Settings
from mis.track.links import comparison_links
from mis.track.mlflow import MlflowTracker
from mis.track.server import server, wait_until_ready

ROOT = Path(__file__).parents[1]

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
"""Of the browser: containers run as root and have no GPU, and WebGL is drawn by the processor."""


def main() -> int:
    """Run the pipeline, and write README.md and its pictures."""
    clean_commit(ROOT)
    with TemporaryDirectory() as folder:
        clone = Path(folder) / "mis"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        elapsed_s, peak_bytes = run_pipeline(clone)
        text = figures(clone / "results", elapsed_s, peak_bytes)
        take_picture(clone / "results" / "report" / "report.html", ROOT / "docs" / "report.png")
        copy_file(clone / "results" / "report" / "speedup.png", ROOT / "docs" / "speedup.png")
        take_study_picture(clone, ROOT / "docs" / "search.png")
        take_case_pictures(clone / "results", ROOT / "docs")
    write_figures(ROOT / "README.md", "benchmarks/readme.py", text)
    print(text)
    return 0


def run_pipeline(clone: Path) -> tuple[float, int]:
    """Run `dvc repro` and return the seconds that it took and the most memory that it had at once.

    The memory is that of all its processes, what they share counted once (PSS), twice a second.
    """
    begun, peak_bytes = time.perf_counter(), 0
    with subprocess.Popen(["dvc", "repro"], cwd=clone) as process:
        while process.poll() is None:
            peak_bytes = max(peak_bytes, memory_bytes(psutil.Process(process.pid)))
            time.sleep(0.5)
    if process.returncode:
        raise MisError("the pipeline must run to its end", got=f"exit code {process.returncode}")
    return time.perf_counter() - begun, peak_bytes


def memory_bytes(process: psutil.Process) -> int:
    """Return the memory of a process and all that it has started."""
    total = 0
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.Error):  # it may have ended meanwhile
            total += member.memory_full_info().pss
    return total


def figures(results: Path, elapsed_s: float, peak_bytes: int) -> str:
    """Return the lines of README.md: time and memory, scores, speed-up, and what they were measured on."""
    test = read_json(results / "evaluate" / "metrics.json")
    tune = read_json(results / "tune" / "metrics.json")
    on = read_json(results / "scaling" / "measured_on.json")
    machine, versions = on["machine"], on["versions"]
    regions = ", ".join(f"{name} {test[f'dice_{name.lower()}']:.2f}" for name in ("WT", "TC", "ET"))
    return "\n".join(
        [
            f"In the run that is shown, on {machine['cores']} cores ({machine['cpu']}, {machine['memory_gib']} GiB; "
            f"Keras {versions['keras']}, TensorFlow {versions['tensorflow']}, Ray {versions['ray']}; commit "
            f"`{on['git_commit'][:10]}`, {on['measured_at'][:10]}):",
            "",
            f"- the pipeline took {elapsed_s / 60:.1f} minutes after the installation, "
            f"and {peak_bytes / 2**30:.1f} GiB at most;",
            f"- Dice on {test['cases']} test cases of the phantom: {regions}; the best threshold on FLAIR reaches WT "
            f"{test['threshold_dice_wt']:.2f} on the same cases;",
            f"- {tune['trials']} trials searched at {tune['trials_per_hour']:.0f} trials an hour;",
            f"- the same short trials on two devices instead of one: {speedups(results)};",
            "  what longer ones reach stands in [Scaling](docs/scaling.md).",
        ]
    )


def speedups(results: Path) -> str:
    """Return the speed-up of each mode on two devices, and its spread."""
    rows = [row for row in rows_of(results, "speedup") if row["devices"] == "2"]
    return ", ".join(
        f"{MODE_NAMES[row['mode']]} x{float(row['speedup']):.2f} "
        f"({float(row['speedup_min']):.2f} to {float(row['speedup_max']):.2f})"
        for row in rows
    )


def rows_of(results: Path, table: str) -> list[dict[str, str]]:
    """Return the lines of a table of the stage `scaling`."""
    with (results / "scaling" / f"{table}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def take_picture(report: Path, path: Path) -> None:
    """Take a picture of the report's first screens."""
    with browser_page(1240, 1990) as page, new_file(path) as unfinished:
        page.goto(report.as_uri())
        page.screenshot(path=unfinished)


def take_study_picture(root: Path, path: Path) -> None:
    """Take a picture of what the MLflow UI shows of a project's last study."""
    tracker = MlflowTracker(Settings(root=root, workspace=root, tracking_uri=f"sqlite:///{root}/mlruns/mlflow.db"))
    port, log = free_port(), root / "mlruns" / "ui.log"
    base = f"http://127.0.0.1:{port}"
    with server(tracker.uri, port, log) as process, browser_page(1500, 1100) as page, new_file(path) as unfinished:
        wait_until_ready(process, base, log)
        page.goto(next(link.url for link in comparison_links(base, tracker) if link.key == "tune.figures"))
        page.frame_locator("iframe").locator(".js-plotly-plot .main-svg").first.wait_for()
        page.wait_for_timeout(3000)  # until all of it is drawn
        page.screenshot(path=unfinished, clip={"x": 0, "y": 0, "width": 1110, "height": 1100})  # without MLflow's chat


def take_case_pictures(results: Path, docs: Path) -> None:
    """Take the sheet of the worst test case, and a picture of the page on which it is looked at in 3-D."""
    with (results / "evaluate" / "cases.csv").open(encoding="utf-8") as file:
        worst = min(csv.DictReader(file), key=lambda row: float(row["dice"]))["case"]
    copy_file(results / "evaluate" / "sheets" / f"{worst}.png", docs / "sheet.png")
    with browser_page(1400, 640) as page, new_file(docs / "cases.png") as unfinished:
        page.goto((results / "report" / "cases.html").as_uri())
        page.wait_for_function("document.body.dataset.shown")
        page.wait_for_timeout(3000)  # until all of it is drawn
        page.screenshot(path=unfinished)


@contextmanager
def browser_page(width: int, height: int) -> Iterator[Page]:
    """Open an empty page of so many pixels."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        raise MisError("the picture needs Chromium", do="install it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        try:
            yield browser.new_page(viewport={"width": width, "height": height})
        finally:
            browser.close()


if __name__ == "__main__":
    sys.exit(main())
