"""What preprocessing and reading cost, against the paper's way (`paper_records.py`), on phantoms at full size.

`python benchmarks/input_pipeline.py` makes phantoms of 240 x 240 x 155 and measures, both ways in turn over several
rounds, with as many cases at once as there are cores:

- bytes of a case on disk, and what compression would save of them and cost to read;
- cases a second of preprocessing, checks and hashes included, files in the page cache;
- CPU seconds to read a case, over all threads, from the page cache;
- memory of preprocessing: the highest that a process ever had, divided by its workers; also of the input that takes
  most, float64 with scl_slope;
- samples a second of the input pipeline for whole cases and for patches, with the records in the page cache and
  dropped from it;
- samples a second, and CPU seconds of a sample, where a case that was read gives one patch and where it gives several.

It prints the table and, with `--write`, puts it into docs/data.md (then nothing may be uncommitted). The exit code is 1
where a bar is missed. About 5 minutes on two cores.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
from isal import igzip
from page import clean_commit, measured_where, write_figures

from mis.quiet import import_tensorflow

import_tensorflow()

import paper_records  # noqa: E402 - TensorFlow's own lines are silenced before
import tensorflow as tf  # noqa: E402

from mis.data.case import DataSet  # noqa: E402
from mis.data.layouts.recognise import read_data  # noqa: E402
from mis.data.phantom.write import make_phantom  # noqa: E402
from mis.data.pipeline.dataset import case_batches, readers, training_batches  # noqa: E402
from mis.data.records.index import Records  # noqa: E402
from mis.data.records.writer import write_records  # noqa: E402
from mis.params.data import PhantomParams  # noqa: E402
from mis.params.load import Params, load_params  # noqa: E402
from mis.settings import cores  # noqa: E402

ROOT = Path(__file__).parents[1]
PARAMS = ROOT / "pipelines" / "plain.yaml"
SHAPE = (240, 240, 155)
PATCH = [96, 96, 96]
AUGMENT: dict[str, object] = {
    "train.augment.flip": 0.5, "train.augment.chance": 0.15, "train.augment.rotate_deg": 30.0,
    "train.augment.scale": 0.3, "train.augment.intensity_scale": 0.25, "train.augment.gamma": 0.4,
    "train.augment.noise": 0.1, "train.augment.blur_vox": 1.0,
}  # fmt: skip
"""nnU-Net's strengths in our terms: docs/augmentation.md."""
SEVERAL = 4
"""Patches of a case that is read once."""

PREPROCESS = """
import re, sys
from pathlib import Path
from mis.quiet import import_tensorflow
import_tensorflow()
from mis.data.layouts.recognise import read_data
from mis.data.records.writer import write_records
from mis.params.load import load_params
raw, params, folder, jobs = sys.argv[1:]
write_records(read_data(Path(raw)), load_params(Path(params)).data, Path(folder), jobs=int(jobs), progress=False)
# Not ru_maxrss, which goes on from that of the process that started this one.
print(1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text()).group(1)))
"""


Line = tuple[str, bool]
"""A line of the table of bars, and whether its bar is met."""


@dataclass(frozen=True)
class Bench:
    """The measurements, on phantoms in a folder."""

    folder: Path
    data: DataSet
    params: Params
    rounds: int

    @classmethod
    def prepared(cls, folder: Path, cases: int, rounds: int) -> "Bench":
        """Make the phantoms, and return the measurements to be made on them."""
        phantom = PhantomParams(layout="msd", cases=cases, unlabelled=0, shape=SHAPE, seed=7)
        make_phantom(folder / "raw", phantom, jobs=cores())
        return cls(folder, read_data(folder / "raw"), load_params(PARAMS), rounds)

    def records(self, **changes: object) -> Records:
        """Preprocess everything anew."""
        params = self.params.override({f"data.{name}": value for name, value in changes.items()}).data
        folder = self.folder / "records"
        shutil.rmtree(folder, ignore_errors=True)
        return write_records(self.data, params, folder, jobs=cores(), progress=False)

    def paper(self) -> list[Path]:
        """Preprocess everything anew as the paper did."""
        folder = self.folder / "paper"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        with ThreadPoolExecutor(cores()) as pool:
            return list(pool.map(lambda case: paper_records.write_case(case, folder), self.data.cases))

    def names(self) -> list[str]:
        """Return the cases' names."""
        return [case.id for case in self.data.cases]

    def preprocessing(self) -> list[Line]:
        """Compare bytes and speed."""
        self.records(), self.paper()  # the source files are in the page cache from now on
        ours, theirs = [], []
        for _ in range(self.rounds):
            ours.append(len(self.data.cases) / _seconds(self.records))
            theirs.append(len(self.data.cases) / _seconds(self.paper))
        ours_bytes = statistics.mean(entry.size_bytes for entry in self.records().cases.values())
        paper_bytes = statistics.mean(path.stat().st_size for path in self.paper())
        sizes = f"{ours_bytes / 1e6:.1f} MB | {paper_bytes / 1e6:.1f} MB | 1/{paper_bytes / ours_bytes:.1f}"
        return [
            (f"| bytes of a case | {sizes} | at most 1/6 |", paper_bytes >= 6 * ours_bytes),
            _row("preprocessing, cases a second", ours, theirs, ("at least x4", 4), sign="x"),
        ]

    def reading(self) -> list[Line]:
        """Compare the CPU time of reading."""
        records, paths = self.records(), self.paper()
        ours, theirs = [], []
        for _ in range(self.rounds):
            ours.append(_cpu_s(case_batches(records, self.names(), 1)))
            theirs.append(_cpu_s(paper_records.batches(paths, 1, readers())))
        return [_row("CPU seconds to read a case", ours, theirs, ("at most 1/3", 3), sign="1/")]

    def compression(self) -> list[str]:
        """Measure what compression of the records saves and costs."""
        lines = []
        for kind in ("none", "zlib"):
            records = self.records(compression=kind)
            size = statistics.mean(entry.size_bytes for entry in records.cases.values())
            cpu = [_cpu_s(case_batches(records, self.names(), 1)) for _ in range(self.rounds)]
            lines.append(f"| `data.compression: {kind}` | {size / 1e6:.1f} MB | {_spread(cpu)} s |")
        return lines

    def memory(self) -> list[Line]:
        """Measure the memory of preprocessing in processes of their own."""
        largest = self._largest()
        cells = [(jobs, root) for root in (self.folder / "raw", largest) for jobs in sorted({1, cores()})]
        lines = []
        for jobs, root in cells:
            target = self.folder / "memory"
            command = [sys.executable, "-c", PREPROCESS, *map(str, (root, PARAMS, target, jobs))]
            output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
            shutil.rmtree(target)
            peak = int(output.splitlines()[-1]) / 1e9
            text = f"memory of preprocessing with {jobs} worker{'s' if jobs > 1 else ''}, TensorFlow included"
            text += ", float64 with scl_slope" if root == largest else ""
            lines.append(
                (f"| {text} | {peak:.2f} GB, {peak / jobs:.2f} each | | | at most 1.5 each |", peak <= 1.5 * jobs)
            )
        return lines

    def _largest(self) -> Path:
        """Write some of the cases as the type of voxels that takes most memory."""
        root = self.folder / "largest"
        index = json.loads((self.data.root / "dataset.json").read_text())
        index |= {"training": index["training"][:4], "numTraining": 4}
        for name in (entry[key] for entry in index["training"] for key in ("image", "label")):
            image, target = nib.load(self.data.root / name), root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if "label" in name:
                shutil.copy(self.data.root / name, target)
                continue
            doubled = nib.Nifti1Image(np.asarray(image.dataobj).astype(np.float64), image.affine)
            doubled.header.set_slope_inter(0.5, 0)
            target.write_bytes(igzip.compress(doubled.to_bytes(), 1))
        (root / "dataset.json").write_text(json.dumps(index))
        return root

    def pipeline(self) -> list[str]:
        """Measure the input pipeline, warm and cold."""
        records = self.records()
        kinds: dict[str, dict[str, object]] = {
            "whole cases": {},
            "whole cases, augmented": AUGMENT,
            f"patches of {PATCH[0]}³": {"train.patch_size": PATCH},
            f"patches of {PATCH[0]}³, augmented": {"train.patch_size": PATCH, **AUGMENT},
        }
        return [f"| {name} | {self._rates(records, changes)} |" for name, changes in kinds.items()]

    def feeding(self) -> list[str]:
        """Compare one patch of a case that is read with several, in turn."""
        records = self.records()
        lines = []
        for name, changes in (("", {}), (", augmented", AUGMENT)):
            measured: dict[int, list[tuple[float, float]]] = {1: [], SEVERAL: []}
            for _ in range(self.rounds):
                for each, found in measured.items():
                    wanted = {"train.patch_size": PATCH, "train.patches_per_case": each, **changes}
                    found.append(self._feed(records, wanted))
            for unit, index, sign in (("samples a second", 0, "x"), ("CPU seconds of a sample", 1, "1/")):
                before, after = ([pair[index] for pair in found] for found in measured.values())
                compared, _ = _compared(after, before, sign)
                what = f"patches of {PATCH[0]}³{name}, {unit}"
                lines.append(f"| {what} | {_spread(before)} | {_spread(after)} | {compared} |")
        return lines

    def _feed(self, records: Records, changes: dict[str, object]) -> tuple[float, float]:
        """Return samples a second and CPU seconds of a sample, over all threads, once the pipeline has been traced."""
        train = self.params.override({"train.batch_size": 2, **changes}).train
        epoch = iter(training_batches(records, self.names(), train))
        for _ in range(SEVERAL):
            next(epoch)
        steps = SEVERAL * len(self.names()) // 2
        begun, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            next(epoch)
        return 2 * steps / (time.perf_counter() - begun), (time.process_time() - cpu) / (2 * steps)

    def _rates(self, records: Records, changes: dict[str, object]) -> str:
        train = self.params.override({"train.batch_size": 2, **changes}).train
        rates: dict[bool, list[float]] = {False: [], True: []}
        for number in range(2 * self.rounds):
            cold = number % 2 == 1
            steps = len(self.names()) // 2
            epoch = training_batches(records, self.names(), train, first_step=number * steps).take(steps)
            for _ in epoch:  # traced, and all in the page cache
                pass
            if cold:
                _drop(records)
            begun = time.perf_counter()
            count = sum(2 for _ in epoch)  # of one epoch: in a second one nothing is cold
            rates[cold].append(count / (time.perf_counter() - begun))
        return f"{_spread(rates[False])} | {_spread(rates[True])}"


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _cpu_s(batches: tf.data.Dataset) -> float:
    """Return the CPU seconds of one sample, over all threads, once the pipeline has been traced."""
    count = sum(1 for _ in batches)
    begun = time.process_time()
    for _ in batches:
        pass
    return (time.process_time() - begun) / count


def _drop(records: Records) -> None:
    """Drop the records from the page cache."""
    for case in records.cases:
        with records.path(case).open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def _row(what: str, ours: Sequence[float], theirs: Sequence[float], bar: tuple[str, float], *, sign: str) -> Line:
    """Return a line that compares round by round, and whether the bar is met."""
    compared, middle = _compared(ours, theirs, sign)
    return f"| {what} | {_spread(ours)} | {_spread(theirs)} | {compared} | {bar[0]} |", middle >= bar[1]


def _compared(ours: Sequence[float], theirs: Sequence[float], sign: str) -> tuple[str, float]:
    """Return ours divided by theirs, or 1 divided by theirs / ours, round by round: as text, and its median."""
    each = [our / their if sign == "x" else their / our for our, their in zip(ours, theirs, strict=True)]
    middle, low, high = statistics.median(each), min(each), max(each)
    return f"{sign}{middle:.1f} ({sign}{low:.1f} to {sign}{high:.1f})", middle


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and write them where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/data.md")
    options = parser.parse_args(argv)
    if options.write:
        clean_commit(ROOT)
    with TemporaryDirectory() as name:
        bench = Bench.prepared(Path(name), options.cases, options.rounds)
        compared = [*bench.preprocessing(), *bench.reading(), *bench.memory()]
        compression, rates, feeding = bench.compression(), bench.pipeline(), bench.feeding()
    details = f"{options.cases} phantoms of 240 x 240 x 155, medians of {options.rounds} rounds with their spread"
    text = "\n".join([
        measured_where(ROOT, details),
        "", "| | here | the paper's way | here / paper | bar |", "|---|---|---|---|---|",
        *(line for line, _ in compared),
        "", "| records | bytes of a case | CPU to read one |", "|---|---|---|", *compression,
        "", "| input pipeline, samples a second | warm | cold |", "|---|---|---|", *rates,
        "", f"| `train.patches_per_case` | 1 | {SEVERAL} | {SEVERAL} / 1 |", "|---|---|---|---|", *feeding,
    ])  # fmt: skip
    print(text)
    if options.write:
        write_figures(ROOT / "docs" / "data.md", "benchmarks/input_pipeline.py", text)
    for line in (line for line, is_met in compared if not is_met):
        print(f"missed: {line}", file=sys.stderr)
    return int(not all(is_met for _, is_met in compared))


if __name__ == "__main__":
    raise SystemExit(main())
