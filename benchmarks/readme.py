"""Write the figures and the pictures of README.md from the results of `make repro`.

Run it after `make repro`, from the repository: `python benchmarks/readme.py`. It needs Chromium, for
the picture. It measures nothing itself and has no peer; it prints the lines that it has written.
"""

import csv
import shutil
import sys
from pathlib import Path
from statistics import median

from playwright.sync_api import sync_playwright

from mis.errors import MisError
from mis.files import copy_file, new_file, read_json
from mis.scaling.plan import MODE_NAMES

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
BEGIN, END = "<!-- figures: written by benchmarks/readme.py -->", "<!-- end of figures -->"


def main() -> int:
    """Write README.md and its pictures."""
    text = figures()
    print(text)
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    with new_file(readme) as unfinished:
        unfinished.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    take_picture(RESULTS / "report" / "report.html", ROOT / "docs" / "report.png")
    copy_file(RESULTS / "report" / "speedup.png", ROOT / "docs" / "speedup.png")
    return 0


def figures() -> str:
    """Return the lines of README.md: scores, speed-up, and what they were measured on."""
    test = read_json(RESULTS / "evaluate" / "metrics.json")
    tune = read_json(RESULTS / "tune" / "metrics.json")
    on = read_json(RESULTS / "scaling" / "measured_on.json")
    machine, versions = on["machine"], on["versions"]
    regions = ", ".join(f"{name} {test[f'dice_{name.lower()}']:.2f}" for name in ("WT", "TC", "ET"))
    return "\n".join(
        [
            f"In the run that is shown, on {machine['cores']} cores ({machine['cpu']}, {machine['memory_gib']} GiB; "
            f"Keras {versions['keras']}, TensorFlow {versions['tensorflow']}, Ray {versions['ray']}; commit "
            f"`{on['git_commit'][:10]}`, {on['measured_at'][:10]}):",
            "",
            f"- Dice on {test['cases']} test cases of the phantom: {regions}; the best threshold on FLAIR reaches WT "
            f"{test['threshold_dice_wt']:.2f} on the same cases;",
            f"- {tune['trials']} trials searched at {tune['trials_per_hour']:.0f} trials an hour;",
            f"- the same short trials with two devices instead of one: {speedups()}. Most of such a trial is set-up",
            "  (building and tracing the network), which takes longer for two replicas; one training's epoch after the",
            f"  first, spread over both devices: x{epoch_speedup():.2f}.",
        ]
    )


def speedups() -> str:
    """Return the speed-up of each mode with two workers, and its spread."""
    rows = [row for row in rows_of("speedup") if row["workers"] == "2"]
    return ", ".join(
        f"{MODE_NAMES[row['mode']]} x{float(row['speedup']):.2f} "
        f"({float(row['speedup_min']):.2f} to {float(row['speedup_max']):.2f})"
        for row in rows
    )


def epoch_speedup() -> float:
    """Return how much shorter an epoch without set-up is for one training on two devices than on one."""
    one, two = (
        median(float(row["epoch_s"]) for row in rows_of("trials") if (row["mode"], row["workers"]) == cell)
        for cell in (("experiment", "1"), ("data", "2"))
    )
    return one / two


def rows_of(table: str) -> list[dict[str, str]]:
    """Return the lines of a table of the stage `scaling`."""
    with (RESULTS / "scaling" / f"{table}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def take_picture(report: Path, path: Path) -> None:
    """Take a picture of the report's first screens."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        raise MisError("the picture needs Chromium", do="install it")
    with sync_playwright() as playwright, new_file(path) as unfinished:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1240, "height": 1990})
        page.goto(report.as_uri())
        page.screenshot(path=unfinished)
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
