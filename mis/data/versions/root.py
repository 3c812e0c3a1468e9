"""Set `data.root` in params.yaml, the data set that an experiment reads, and change nothing else of that file."""

import json
import re
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node

from mis.errors import MisError
from mis.files import new_file

RAW = "data/raw"
"""The folder of the data sets, or of links to them."""
MADE_BY_STAGE = "phantom"
"""The name in that folder that the stage `phantom` writes to."""


def set_root(params: Path, root: str) -> bool:
    """Set `data.root` in a params file; comments and formatting stay.

    Returns:
        Whether the value has changed.

    Raises:
        MisError: The file is missing, is not YAML, or has no such key.
    """
    try:
        text = params.read_bytes().decode()  # bytes, so that the ends of lines stay
        node = _value(YAML().compose(text), "data", "root")
    except FileNotFoundError:
        raise MisError("the params file must exist", got=params) from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise MisError(f"{params} must be YAML: {error}") from None
    if node is None:
        raise MisError(f"{params.name} must have data.root", do=f"add it, with the value {root}")
    if node.value == root:
        return False
    plain = re.fullmatch(r"[A-Za-z][\w./-]*", root, re.ASCII)
    value = root if plain else json.dumps(root, ensure_ascii=False)  # a JSON text is YAML too
    with new_file(params) as unfinished:
        before, old = text[: node.start_mark.index], text[node.start_mark.index : node.end_mark.index]
        after = text[len(before) + len(old.rstrip()) :]  # rstrip: a folded value ends with its end of line
        unfinished.write_bytes((before + value + after).encode())
    return True


def use_folder(workspace: Path, name: str) -> str:
    """Set `data.root` of a project to a folder in data/raw, and return a line to print."""
    root = f"{RAW}/{name}"
    changed = set_root(workspace / "params.yaml", root)
    return f"params.yaml: data.root is {'now ' if changed else ''}{root}"


def check_name(name: str) -> None:
    """Check that a data set may have this name in data/raw.

    Raises:
        MisError: The name is empty, begins with a dot, or is that of the phantom.
    """
    if not name or name.startswith("."):
        raise MisError("a data set must have a name that does not begin with a dot", got=repr(name))
    if name == MADE_BY_STAGE:
        rule = f"a data set of yours must not have the name of the one that the stage {MADE_BY_STAGE} makes"
        raise MisError(rule, got=name, do="give it another name")


def _value(node: Node | None, *keys: str) -> Node | None:
    """Return the node of a key of nested mappings, None where there is none."""
    for key in keys:
        if not isinstance(node, MappingNode):
            return None
        node = next((value for name, value in node.value if name.value == key), None)
    return node
