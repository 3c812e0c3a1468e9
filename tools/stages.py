"""Write the stages' dependencies on code into dvc.yaml: `make stages`.

A stage depends on its script, on every module of `mis` that this imports, directly or not, and on the templates beside
them. Other dependencies, such as records, stay as they are. tests/test_architecture.py compares.
"""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
CODE = ("pipelines/", "mis/")


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
    shown = sorted(file.relative_to(ROOT).as_posix() for file in files if file.name != "__init__.py")
    return [script.relative_to(ROOT).as_posix(), *shown]


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
