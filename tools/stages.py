"""Write the stages' dependencies on code into dvc.yaml: `make stages`.

A stage depends on its script, on the modules of `mis` that this imports, directly or not, and on the templates beside
them. A stage that trains or predicts depends only on what it computes with: modules that show, say, record or start
something are left out, so that a colour, a sentence or a progress text makes no training stale. Other dependencies,
such as records, stay as they are. tests/test_architecture.py compares.
"""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
CODE = ("pipelines/", "mis/")

COMPUTING = ("train", "tune", "evaluate", "scaling")
"""Stages that take long, or whose figures are compared: they depend on what they compute with alone."""

APART = (
    # What is said and shown.
    "mis/errors.py",
    "mis/pages.py",
    "mis/style.py",
    "mis/words.py",
    "mis/report/",
    "mis/data/check/wording.py",
    "mis/data/check/tables.py",
    "mis/data/check/check.html.j2",
    "mis/data/records/errors.py",
    "mis/data/records/summary.py",
    "mis/model/size.py",
    "mis/train/messages.py",
    "mis/train/progress.py",
    "mis/tune/console/",
    "mis/tune/ray/errors.py",
    # What is recorded, and where: DVC watches the values of params.yaml themselves.
    "mis/track/",
    "mis/train/record.py",
    "mis/tune/study/recorder.py",
    "mis/scaling/record.py",
    "mis/scaling/cell_store.py",
    "mis/tune/study/messages.py",
    "mis/params/",
    # Where things are kept: what is fetched is what was sent.
    "mis/storage/",
    "mis/train/remote_checkpoints.py",
    "mis/tune/study/kept.py",
    # What starts, finds and ends processes, and reads a command line.
    "mis/cli.py",
    "mis/machine/",
    "mis/files.py",
    "mis/ports.py",
    "mis/quiet.py",
    "mis/settings.py",
    "mis/termination.py",
    "mis/train/clocks.py",
    "mis/train/cluster.py",
    "mis/train/connect.py",
    "mis/train/gang.py",
    "mis/train/heartbeat.py",
    "mis/train/in_force.py",
    "mis/train/installation.py",
    "mis/train/launch.py",
    "mis/train/meeting.py",
    "mis/train/nodes.py",
    "mis/train/profile.py",
    "mis/train/promised_gpus.py",
    "mis/train/rendezvous.py",
    "mis/train/signals.py",
    "mis/train/worker_process.py",
)
"""Files and folders that change no figure of a stage."""

EXCEPT = {"mis/params/load.py": ("tune", "scaling"), "mis/params/space.py": ("tune",)}
"""Of these, what some stages compute with: a trial's parameters, and what a search draws its values from."""


STARTS_ONLY = {"train": ("mis/tune/",)}
"""What starts, watches and resumes the trainings of a stage, and computes no figure of it: the study of the folds."""

CHOSEN = ("mis/tune/folds.py",)
"""Of these, what computes a figure all the same."""


def main() -> int:
    """Write the lists and say which stages have changed."""
    path, yaml = ROOT / "dvc.yaml", YAML()
    yaml.width, yaml.preserve_quotes = 120, True
    yaml.indent(mapping=2, sequence=4, offset=2)
    tree = yaml.load(path.read_text(encoding="utf-8"))
    for name, stage in tree["stages"].items():
        before, others = list(stage["deps"]), [dep for dep in stage["deps"] if not dep.startswith(CODE)]
        wanted = [*dependencies(name), *others]
        if wanted != before:
            stage["deps"][:] = wanted
            print(f"{name}: {len(set(wanted) - set(before))} added, {len(set(before) - set(wanted))} removed")
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(tree, file)
    return 0


def dependencies(stage: str) -> list[str]:
    """Return the files of code that a stage depends on, its script first, relative to the project's folder."""
    script = ROOT / "pipelines" / f"{stage}.py"
    modules = _closure(script)
    files = {file for module in modules for file in (module, *_templates(module))} - {script}
    names = sorted(file.relative_to(ROOT).as_posix() for file in files if file.name != "__init__.py")
    if stage in COMPUTING:
        kept = (*CHOSEN, *(name for name, by in EXCEPT.items() if stage in by))
        names = [name for name in names if name in kept or not name.startswith(apart(stage))]
    return [script.relative_to(ROOT).as_posix(), *names]


def apart(stage: str) -> tuple[str, ...]:
    """Return the beginnings of the names of files that change no figure of a stage."""
    return (*APART, *STARTS_ONLY.get(stage, ()))


def _closure(script: Path) -> set[Path]:
    seen: set[Path] = set()
    waiting = [script]
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting += imported(file)
    return seen


@cache
def imported(file: Path) -> frozenset[Path]:
    """Return the project's files that a file imports, wherever in it."""
    names = _names(ast.parse(file.read_text(encoding="utf-8")))
    return frozenset(module for name in names if (module := _file_of(name)) is not None)


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if _file_of(name) else node.module for name in submodules)


def _file_of(module: str) -> Path | None:
    if module.split(".", maxsplit=1)[0] != "mis":
        return None
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _templates(module: Path) -> list[Path]:
    """Return the files beside a module that are no Python and that its source names."""
    source = module.read_text(encoding="utf-8")
    beside = (file for file in module.parent.iterdir() if file.is_file() and file.suffix not in (".py", ".pyc"))
    return [file for file in beside if file.name in source]


if __name__ == "__main__":
    sys.exit(main())
