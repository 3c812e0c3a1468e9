"""What of Python, of libraries and of `mis` itself a process has: all nodes of a cluster must have the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mis.machine.diagnosis import Diagnosis
from mis.track.provenance import PACKAGE, UNKNOWN, digest_of_sources, versions

NAMES = {
    "python": "Python",
    "mis": "mis",
    "keras": "Keras",
    "tensorflow": "TensorFlow",
    "ray": "Ray",
    "mlflow": "MLflow",
    "numpy": "NumPy",
}
"""What is looked at, by the name of the package, as it is shown."""

MUST_AGREE = ("python", "ray", "keras", "tensorflow", "mis")
"""What every node must have in the same version; Ray itself demands it of Python, to the last number, and of Ray."""

SHOULD_AGREE = ("numpy",)
"""What differs without harm as long as each node can read the arrays of the others."""

DIGEST_LETTERS = 10
"""Letters of a digest that are shown."""


@dataclass(frozen=True)
class Installation:
    """What a process has.

    Attributes:
        versions: The versions of Python and of packages, by name; `unknown` for one that is not installed.
        sources: A digest of all sources of `mis`: the version is the same from one commit to the next.
        folder: Where these sources are.
    """

    versions: Mapping[str, str]
    sources: str
    folder: str


def find_installation() -> Installation:
    """Return what this process has. No library is imported for it."""
    found = versions()
    sources = digest_of_sources(sorted(PACKAGE.rglob("*.py")))
    return Installation({name: found.get(name, UNKNOWN) for name in NAMES}, sources, str(PACKAGE))


def compare(own: Installation, nodes: Mapping[str, Installation]) -> list[Diagnosis]:
    """Return in what nodes differ from this process; nothing where they do not.

    Args:
        own: What this process has.
        nodes: What the nodes have, by what they are called.
    """
    found = []
    for package in (*MUST_AGREE, *SHOULD_AGREE):
        by_version: dict[str, list[str]] = {}
        for name, node in nodes.items():
            by_version.setdefault(node.versions.get(package, UNKNOWN), []).append(name)
        by_version.pop(own.versions[package], None)
        found += [_other_version(package, own, version, names) for version, names in by_version.items()]
    by_sources: dict[tuple[str, str], list[str]] = {}
    for name, node in nodes.items():
        if node.sources != own.sources:
            by_sources.setdefault((node.sources, node.folder), []).append(name)
    return found + [_other_sources(own, *other, names) for other, names in by_sources.items()]


def judge_own(own: Installation) -> list[Diagnosis]:
    """Return what there is to say of this process by itself.

    Args:
        own: What it has.
    """
    there = [f"{NAMES[name]} {version}" for name, version in own.versions.items() if version != UNKNOWN]
    missing = [NAMES[name] for name, version in own.versions.items() if version == UNKNOWN]
    found = [Diagnosis("ok", "versions", f"{', '.join(there)}; sources {_short(own)} in {own.folder}")]
    if missing:
        found.append(Diagnosis("error", "versions", f"not installed: {', '.join(missing)}", "make install"))
    return found


def _other_version(package: str, own: Installation, version: str, names: Sequence[str]) -> Diagnosis:
    theirs = "no " if version == UNKNOWN else ""
    has = "has" if len(names) == 1 else "have"
    number = "" if version == UNKNOWN else f" {version}"
    return Diagnosis(
        "error" if package in MUST_AGREE else "warning",
        "versions",
        f"{', '.join(names)} {has} {theirs}{NAMES[package]}{number} (here {own.versions[package]})",
        "install the same on all nodes (make install), and start Ray there from it",
    )


def _other_sources(own: Installation, sources: str, folder: str, names: Sequence[str]) -> Diagnosis:
    has = "has" if len(names) == 1 else "have"
    return Diagnosis(
        "error",
        "versions",
        f"{', '.join(names)} {has} other sources of mis ({sources[:DIGEST_LETTERS]} in {folder}, here {_short(own)} in "
        f"{own.folder})",
        "let all nodes have this repository at the same commit, or in a folder that they share, and start Ray there "
        "with it",
    )


def _short(own: Installation) -> str:
    return own.sources[:DIGEST_LETTERS]
