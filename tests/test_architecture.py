"""What keeps the house in order: who may import whom, and what a stage depends on. Sources are read, not run."""

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distributions
from itertools import chain
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mis.params.load import load_params
from tools import stages

ROOT = Path(__file__).parents[1]

# Data flows one way: a package imports only itself and what stands before it.
TOP = (
    "errors",
    "pages",
    "ports",
    "style",
    "params",
    "settings",
    "files",
    "quiet",
    "termination",
    "storage",
    "cli",
    "words",
)
PACKAGES = (
    "track",
    "machine",
    "data",
    "model",
    "train",
    "predict",
    "evaluate",
    "tune",
    "scaling",
    "report",
    "slurm",
    "doctor",
)

PARAMS = load_params(ROOT / "params.yaml")
SOURCES = sorted([*(ROOT / "mis").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")])


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in SOURCES}
OWN = sorted(module for module in MODULES if module.split(".")[0] == "mis")


@cache
def imports(module: str) -> frozenset[str]:
    """Return the names that a module imports, wherever in it: its own project's as modules, others in full."""
    return frozenset(_imports(ast.parse(MODULES[module].read_text(encoding="utf-8"))))


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                own = node.module.split(".")[0] in {"mis", "pipelines"}
                yield node.module if own and name not in MODULES else name


def own_imports(module: str) -> set[str]:
    return {name for name in imports(module) if name.split(".")[0] == "mis"}


def importers(package: str) -> set[str]:
    """Return the modules that import a package or anything in it."""
    return {module for module in MODULES if any(f"{name}.".startswith(f"{package}.") for name in imports(module))}


def layer(module: str) -> int:
    """Return how far down a module stands; a command stands below all packages, as a stage does."""
    parts = module.split(".")
    if parts[0] == "pipelines" or parts[-1] == "__main__":
        return 2 + len(PACKAGES)
    if len(parts) == 1:
        return 0
    return 1 if parts[1] in TOP else 2 + PACKAGES.index(parts[1])


# ---- Who imports whom ----


def test_there_is_something_to_read():
    assert {"mis", "mis.params.load", "mis.train.fit", "mis.track.mlflow", "pipelines.train"} <= set(MODULES)
    assert "mis.errors" in imports("mis.params.load")
    assert "mis.train.devices" in imports("mis.train.trial")


def test_every_module_stands_in_a_layer():
    assert {module.split(".")[1] for module in OWN if module != "mis"} <= {*TOP, *PACKAGES}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_stands_above_it(module):
    unknown = own_imports(module) - set(MODULES)
    assert not unknown, "no such module"
    assert not {name for name in own_imports(module) if layer(name) > layer(module)}


@pytest.mark.parametrize("module", OWN)
def test_no_module_imports_a_pipeline(module):
    assert not {name for name in imports(module) if name.split(".")[0] in {"pipelines", "tests", "benchmarks"}}


def test_no_imports_go_round():
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        path.append(module)
        for name in sorted(own_imports(module)):
            visit(name)
        done.add(path.pop())

    for module in OWN:
        visit(module)
    assert done == set(OWN)


# ---- Who imports what ----


def test_mlflow_is_imported_in_one_file():
    assert importers("mlflow") == {"mis.track.mlflow"}


def test_ray_is_at_the_edge():
    assert {"mis.tune.ray.driver", "mis.train.gang"} <= importers("ray")
    allowed = {"mis.train.cluster", "mis.train.gang", "mis.train.heartbeat", "mis.train.worker_process"}
    allowed |= {"mis.slurm.joined", "mis.train.nodes"}
    assert {module for module in importers("ray") if not module.startswith("mis.tune.ray.")} <= allowed
    assert importers("ray.tune") == {
        f"mis.tune.ray.{name}"
        for name in ("callback", "driver", "elastic", "placing", "schedulers", "searcher", "stall", "worker")
    }


def test_a_trial_knows_nothing_of_ray():
    assert not {module for module in closure("mis.train.trial") if module in importers("ray")}


@pytest.mark.parametrize("module", [f"mis.{name}" for name in TOP if name != "quiet"])
def test_what_every_command_reads_first_needs_no_tensorflow(module):
    assert not closure(module) & (importers("tensorflow") | importers("keras"))


def test_the_network_its_loss_and_its_metrics_run_on_every_backend():
    assert {"mis.model.losses", "mis.model.metrics", "mis.model.unet"} <= importers("keras")
    for module in MODULES:
        if module.startswith("mis.model"):
            others = {name.split(".")[0] for name in imports(module)} - sys.stdlib_module_names
            assert others <= {"keras", "mis"}


def test_tensorflow_distributes_in_the_package_train_alone():
    named = {
        module
        for module, path in MODULES.items()
        if re.search(r"(?<!Scheduling)(?<!Retry)Strategy\(", path.read_text())
    }
    assert named <= {"mis.train.strategy", "mis.train.multiworker"}


def test_torch_is_neither_imported_nor_installed():
    sources = [*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    for path in sources:
        names = {name.split(".")[0] for name in _imports(ast.parse(path.read_text(encoding="utf-8")))}
        assert not names & {"torch", "torchvision", "lightning", "pytorch_lightning", "monai"}, path
    installed = {(one.metadata["Name"] or "").lower() for one in distributions()}
    assert "tensorflow" in installed
    assert not installed & {"torch", "torchvision", "pytorch-lightning", "lightning", "monai"}


# ---- The pipeline ----


def closure(module: str) -> set[str]:
    """Return all modules of the project that a module imports, directly or not, and itself."""
    seen, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += own_imports(name)
    return seen


def files_read(module: str) -> set[str]:
    """Return the files beside a module that are no Python and that its source names, such as a template."""
    path = MODULES[module]
    beside = (file for file in path.parent.iterdir() if file.is_file() and file.suffix != ".py")
    source = path.read_text(encoding="utf-8")
    return {file.relative_to(ROOT).as_posix() for file in beside if file.name in source}


def read_stages() -> dict[str, dict]:
    return YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def paths(entries: list | None) -> list[str]:
    """Return the paths of `deps`, `outs`, `metrics` or `plots`, with the values of `${...}` in place."""
    names = [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries or ()]
    for name, value in PARAMS.flatten().items():
        names = [path.replace(f"${{{name}}}", str(value)) for path in names]
    assert not [path for path in names if "${" in path]
    return names


def keys(entries: list | None) -> list[str]:
    """Return the dotted names of `params`."""
    names = []
    for entry in entries or ():
        if isinstance(entry, str):
            names.append(entry)
        else:
            ((file, own),) = entry.items()
            assert file == "params.yaml"
            names += own
    return names


def outputs(stage: dict) -> list[str]:
    return [path for kind in ("outs", "metrics", "plots") for path in paths(stage.get(kind))]


def is_within(path: str, folder: str) -> bool:
    return Path(path).is_relative_to(folder)


STAGES = read_stages()
EXPECTED = ["phantom", "preprocess", "train", "tune", "evaluate", "scaling", "report"]


def test_the_stages_are_those_of_the_pipeline():
    assert list(STAGES) == EXPECTED
    assert {path.stem for path in (ROOT / "pipelines").glob("*.py")} - {"__init__"} == set(STAGES)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_a_script_of_its_name_and_depends_on_it(name):
    stage, script = STAGES[name], f"pipelines/{name}.py"
    assert stage["cmd"].split() == ["python", script]
    assert script in paths(stage["deps"])
    assert len((ROOT / script).read_text(encoding="utf-8").splitlines()) <= 40


@pytest.mark.parametrize("name", STAGES)
def test_the_dependencies_of_a_stage_are_those_that_make_stages_writes(name):
    """Packages' own files hold a line of text each, and the version: a new one is no reason to train again."""
    deps = [dep for dep in paths(STAGES[name]["deps"]) if dep.startswith(stages.CODE)]
    assert deps == stages.dependencies(name), "`make stages` writes the list"


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_every_module_that_it_imports_but_those_that_change_no_figure(name):
    modules = closure(f"pipelines.{name}")
    files = {MODULES[module].relative_to(ROOT).as_posix() for module in modules}
    files |= {file for module in modules for file in files_read(module)}
    needed = {file for file in files if not file.endswith("__init__.py")}
    deps = set(stages.dependencies(name))
    assert deps <= needed
    left_out = needed - deps
    assert left_out <= {file for file in needed if file.startswith(stages.apart(name))}
    assert bool(left_out) == (name in stages.COMPUTING)


def test_what_is_left_out_of_the_dependencies_is_there():
    assert not [
        name
        for name in (*stages.APART, *stages.EXCEPT, *stages.CHOSEN, *chain(*stages.STARTS_ONLY.values()))
        if not (ROOT / name).exists()
    ]


WORDS = (
    "mis/style.py",
    "mis/tune/console/table.py",
    "mis/data/check/wording.py",
    "mis/errors.py",
    "mis/train/messages.py",
)


@pytest.mark.parametrize("name", stages.COMPUTING)
def test_no_wording_and_no_colour_is_a_reason_to_compute_again_and_the_loss_is(name):
    deps = stages.dependencies(name)
    assert not set(WORDS) & set(deps)
    assert ("mis/evaluate/scores.py" if name == "evaluate" else "mis/model/losses.py") in deps


@pytest.mark.parametrize("name", STAGES)
def test_every_parameter_of_a_stage_exists(name):
    known = {
        ".".join(flat.split(".")[:length]) for flat in PARAMS.flatten() for length in range(1, flat.count(".") + 2)
    }
    assert set(keys(STAGES[name].get("params"))) <= known


def test_every_parameter_is_one_of_some_stage():
    named = {key for stage in STAGES.values() for key in keys(stage.get("params"))}
    named.add("storage")  # where things are kept decides about no result
    assert not {name for name in PARAMS.flatten() if not any(f"{name}.".startswith(f"{key}.") for key in named)}


@pytest.mark.parametrize("name", STAGES)
def test_what_a_stage_reads_was_made_before_or_is_the_users(name):
    made = []
    for earlier in STAGES:
        if earlier == name:
            break
        made += outputs(STAGES[earlier])
    for dep in paths(STAGES[name].get("deps")):
        is_code = is_within(dep, "mis") or is_within(dep, "pipelines")
        is_users = is_within(dep, "data/raw")
        assert is_code or is_users or any(is_within(dep, out) for out in made), dep


def test_no_two_stages_write_the_same():
    made = [(path, name) for name, stage in STAGES.items() for path in outputs(stage)]
    for path, name in made:
        assert not [other for other in made if other != (path, name) and is_within(path, other[0])]


def test_what_lasts_beyond_a_run_is_no_output():
    for stage in STAGES.values():
        for path in outputs(stage):
            assert not any(is_within(path, folder) for folder in ("mlruns", "checkpoints", "mis", "pipelines")), path


@pytest.mark.parametrize("program", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_what_a_benchmark_imports_is_there(program):
    for node in ast.walk(ast.parse(program.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mis."):
            module = importlib.import_module(node.module)
            names = [alias.name for alias in node.names]
            modules = [name for name in names if (ROOT / node.module.replace(".", "/") / f"{name}.py").is_file()]
            missing = [name for name in names if name not in modules and not hasattr(module, name)]
            assert not missing, f"{node.module} has no {missing}"
