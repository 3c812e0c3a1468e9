"""Cost sets in files: each parameter with where its value comes from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mis.errors import MisError
from mis.files import new_file
from mis.scaling.costs import NAMES, RATES, Costs

SOURCES = ("measured", "fitted", "published", "paper", "assumed")
"""Where a value may come from; `paper` is Berral et al., and the note of `published` names the source."""

_KEYS = {"name", "devices_per_node", "costs"}


@dataclass(frozen=True)
class Origin:
    """Where the value of a parameter comes from.

    Attributes:
        source: One of `SOURCES`.
        note: What was measured, who published it, or why it is assumed.
    """

    source: str
    note: str = ""


@dataclass(frozen=True)
class CostSet:
    """The costs of a cluster, or of several like it.

    Attributes:
        name: What it is the cost of.
        costs: The parameters.
        origins: Where each of them comes from.
        devices_per_node: How many devices a node has.
    """

    name: str
    costs: Costs
    origins: Mapping[str, Origin] = field(default_factory=dict)
    devices_per_node: int = 1

    def rows(self) -> list[dict[str, object]]:
        """Return a row for each parameter, for a table; what is not limited has the value None."""
        return [
            {
                "parameter": name,
                "value": None if (value := getattr(self.costs, name)) == inf else value,
                "source": self.origins[name].source,
                "note": self.origins[name].note,
            }
            for name in NAMES
            if name in self.origins
        ]

    def nodes(self, devices: int) -> tuple[int, ...]:
        """Return the nodes of a cluster with so many devices.

        >>> CostSet("some", Costs(), devices_per_node=4).nodes(10)
        (4, 4, 2)
        """
        full, rest = divmod(devices, self.devices_per_node)
        return (self.devices_per_node,) * full + ((rest,) if rest else ())


def read_cost_set(path: Path) -> CostSet:
    """Read a cost set from a YAML or JSON file; docs/scaling.md has the format.

    Raises:
        MisError: The file cannot be read, has a key that it must not have, or a value that makes no sense.
    """
    try:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise MisError(f"{path} must be a readable YAML or JSON file", got=error) from None
    if not isinstance(content, dict) or not {"name", "costs"} <= content.keys() <= _KEYS:
        got = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise MisError(f"{path} must have the keys name, costs and perhaps devices_per_node", got=got)
    count = content.get("devices_per_node", 1)
    if type(count) is not int or count < 1:
        raise MisError(f"{path}: devices_per_node must be a whole number of at least 1", got=repr(count))
    entries = content["costs"]
    if not isinstance(entries, dict):
        raise MisError(f"{path}: costs must have a key for each parameter", got=repr(entries))
    if unknown := [str(name) for name in entries if name not in NAMES]:
        raise MisError(f"{path}: there is no such cost", got=", ".join(unknown), do=f"there are {', '.join(NAMES)}")
    values, origins = {}, {}
    for name, entry in entries.items():
        values[name], origins[name] = _read_entry(path, name, entry)
    return CostSet(str(content["name"]), Costs(**values), origins, count)


def _read_entry(path: Path, name: str, entry: object) -> tuple[float, Origin]:
    """Return the value of a parameter and its origin; a number alone is assumed."""
    if not isinstance(entry, dict):
        entry = {"value": entry, "source": "assumed"}
    if not {"value", "source"} <= entry.keys() <= {"value", "source", "note"}:
        raise MisError(f"{path}: {name} must have value, source and perhaps note", got=", ".join(map(str, entry)))
    source, note = entry["source"], str(entry.get("note", ""))
    if source not in SOURCES:
        raise MisError(f"{path}: the source of {name} must be one of {', '.join(SOURCES)}", got=source)
    if source == "published" and not note:
        raise MisError(f"{path}: {name} is published and must have a note that says where", got="none")
    return _read_value(path, name, entry["value"]), Origin(source, note)


def _read_value(path: Path, name: str, value: object) -> float:
    if value is None and name in RATES:
        return inf
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value) or value < 0:
        raise MisError(f"{path}: {name} must be a number of at least 0" + _no_limit(name), got=repr(value))
    if name in RATES and not value:
        raise MisError(f"{path}: {name} must be more than 0" + _no_limit(name), got=value)
    return float(value)


def _no_limit(name: str) -> str:
    return ", or null for no limit" if name in RATES else ""


def write_cost_set(path: Path, costs: CostSet) -> None:
    """Write a cost set that `read_cost_set` reads: JSON, which is YAML too."""
    content: dict[str, Any] = {
        "name": costs.name,
        "devices_per_node": costs.devices_per_node,
        "costs": {
            str(row["parameter"]): {key: row[key] for key in ("value", "source", "note")} for row in costs.rows()
        },
    }
    with new_file(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
