import ast
from pathlib import Path

from matplotlib import pyplot

from mis.report import figures, style
from mis.report.results import read_results

ROOT = Path(__file__).parents[2]


def test_regions_have_the_colours_of_the_slices():
    """Read, not imported: the module loads Keras."""
    tree = ast.parse((ROOT / "mis/evaluate/slices.py").read_text(encoding="utf-8"))
    values = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert ast.literal_eval(values["COLOURS"]) == style.REGION_COLOURS


def test_nothing_is_left_in_pyplot(run):
    before = dict(pyplot.rcParams)
    results = read_results(run.write())
    style.png(figures.learning_curves(results.history))
    assert pyplot.get_fignums() == []
    assert dict(pyplot.rcParams) == before
