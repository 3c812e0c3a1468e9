"""Which data set the experiment reads: `data.root` in params.yaml, and nothing else of that file."""

import json
import re
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node

from mis.errors import MisError
from mis.files import new_file

RAW = "data/raw"
"""Where data sets are, or links to them."""
MADE_BY_STAGE = "phantom"
"""The name in it that belongs to the stage `phantom`."""


def set_root(params: Path, root: str) -> bool:
    """Make `data.root` in a params file another value; comments and formatting stay.

    Returns:
        Whether it was another one before.

    Raises:
        MisError: The file is missing, is not YAML, or has no such key.
    """
    try:
        text = params.read_bytes().decode()  # with the ends of lines as they are
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
    own = root if plain else json.dumps(root, ensure_ascii=False)  # a JSON text is YAML too
    with new_file(params) as unfinished:
        before, old = text[: node.start_mark.index], text[node.start_mark.index : node.end_mark.index]
        changed = before + own + text[len(before) + len(old.rstrip()) :]  # a folded text has its end of line in it
        unfinished.write_bytes(changed.encode())
    return True


def use_folder(workspace: Path, name: str) -> str:
    """Point `data.root` of a project at a folder under data/raw, and return what a person is told."""
    root = f"{RAW}/{name}"
    changed = set_root(workspace / "params.yaml", root)
    return f"params.yaml: data.root is {'now ' if changed else ''}{root}"


def check_name(name: str) -> None:
    """Check that a data set may have this name under data/raw.

    Raises:
        MisError: It is empty, hidden, or a stage's.
    """
    if not name or name.startswith("."):
        raise MisError("a data set must have a name that does not begin with a dot", got=repr(name))
    if name == MADE_BY_STAGE:
        rule = f"a data set of yours must not have the name of the one that the stage {MADE_BY_STAGE} makes"
        raise MisError(rule, got=name, do="give it another name")


def _value(node: Node | None, *keys: str) -> Node | None:
    """Return the node of a key in nested mappings, None where there is none."""
    for key in keys:
        if not isinstance(node, MappingNode):
            return None
        node = next((value for name, value in node.value if name.value == key), None)
    return node
