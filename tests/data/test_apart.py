"""What a training computes with is apart from what is shown: no sentence, page or picture makes a training stale."""

import ast

import pytest

from tests.test_architecture import MODULES, closure, imports

COMPUTES = ("mis.data.pipeline.dataset", "mis.data.records.reader")


@pytest.mark.parametrize("module", COMPUTES)
def test_the_input_of_a_training_imports_no_wording_no_page_and_no_picture(module):
    needed = closure(module)
    shown = {"mis.data.check.wording", "mis.data.check.tables", "mis.data.check.report", "mis.data.records.summary"}
    assert shown <= set(MODULES)
    assert not needed & shown
    assert not {name for name in needed if name.startswith(("mis.data.pictures", "mis.data.layouts"))}
    libraries = {name.split(".")[0] for needed_module in needed for name in imports(needed_module)}
    assert not libraries & {"jinja2", "matplotlib", "PIL", "tqdm"}


def test_the_sentences_of_its_errors_are_in_one_module():
    """`mis.params` and `mis.settings` have the errors of what a user writes, which are checked before anything runs."""
    needed = {name for module in COMPUTES for name in closure(module) if name.startswith("mis.data.")}
    calls = {
        module
        for module in needed
        for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "MisError"
    }
    assert calls == {"mis.data.records.errors"}
