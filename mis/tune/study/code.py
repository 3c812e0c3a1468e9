"""Which code began a study: one that other code goes on with is no longer one search."""

from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML

from mis.track.provenance import PACKAGE, digest_of_sources, git_commit

COMMIT, DIGEST = "commit", "digest"
"""What is kept of the code: its commit, for people, and a digest of the files that a search computes with."""

STAGE = "tune"
"""The stage of the pipeline that searches: dvc.yaml lists the files that it computes with."""


def code_version(workspace: Path) -> dict[str, str]:
    """Return the commit, and a digest of the files of `mis` that a search computes with.

    These are the files that dvc.yaml lists for the stage `tune`, so that another wording is no other code; all files
    where it lists none.

    Args:
        workspace: The folder of the project.
    """
    return {COMMIT: git_commit(workspace), DIGEST: digest_of_sources(_files(workspace))[:16]}


def is_other_code(began: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Return whether other code began a study; False where it was not kept which."""
    return DIGEST in began and began[DIGEST] != now[DIGEST]


def sources(code: Mapping[str, str]) -> str:
    """Return a short name, for people, of the sources of some code: commits are equal where nothing was committed."""
    return f"sources {code[DIGEST][:8]}"


def name_of(began: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return which code began a study, by its commit; by its sources where the commit is that of other code now."""
    return sources(began) if is_other_code(began, now) and began[COMMIT] == now[COMMIT] else began[COMMIT]


def _files(workspace: Path) -> list[Path]:
    pipeline = workspace / "dvc.yaml"
    stages = (YAML(typ="safe").load(pipeline) or {}).get("stages", {}) if pipeline.exists() else {}
    listed = [PACKAGE.parent / name for name in stages.get(STAGE, {}).get("deps", []) if str(name).startswith("mis/")]
    return sorted(path for path in listed if path.is_file()) or sorted(PACKAGE.rglob("*.py"))
