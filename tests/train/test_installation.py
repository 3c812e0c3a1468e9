from dataclasses import replace

import pytest

from mis.errors import MisError, NodeAwayError
from mis.machine.diagnosis import Diagnosis, refusal
from mis.train import nodes
from mis.train.installation import MUST_AGREE, NAMES, SHOULD_AGREE, Installation, compare, find_installation, judge_own
from mis.train.nodes import Compared, check_nodes_agree

OWN = Installation(dict.fromkeys(NAMES, "1.2.3"), "a" * 64, "/here/mis")


def with_version(package, version):
    return replace(OWN, versions={**OWN.versions, package: version})


def test_nodes_that_have_the_same_are_not_named():
    assert compare(OWN, {"node-1": OWN, "node-2": replace(OWN, folder="/elsewhere/mis")}) == []
    assert compare(OWN, {}) == []


@pytest.mark.parametrize("package", MUST_AGREE)
def test_another_version_of_what_must_agree_is_an_error_with_the_node_and_both_versions(package):
    (found,) = compare(OWN, {"node-1": OWN, "node-2": with_version(package, "1.2.4")})
    assert found.mark == "error"
    assert found.found == f"node-2 has {NAMES[package]} 1.2.4 (here 1.2.3)"
    assert "make install" in found.do


@pytest.mark.parametrize("package", SHOULD_AGREE)
def test_another_version_of_what_should_agree_is_a_warning(package):
    (found,) = compare(OWN, {"node-2": with_version(package, "9")})
    assert (found.mark, found.found) == ("warning", f"node-2 has {NAMES[package]} 9 (here 1.2.3)")


def test_what_the_nodes_do_not_need_may_differ():
    assert set(NAMES) - {*MUST_AGREE, *SHOULD_AGREE} == {"mlflow"}
    assert compare(OWN, {"node-2": with_version("mlflow", "unknown")}) == []


def test_what_is_not_installed_is_said_so_and_nodes_with_the_same_trouble_share_a_line():
    nodes = {f"node-{number}": with_version("keras", "unknown") for number in (2, 3)}
    (found,) = compare(OWN, {"node-1": OWN, **nodes})
    assert found.found == "node-2, node-3 have no Keras (here 1.2.3)"


def test_other_sources_are_an_error_though_the_version_is_the_same():
    (found,) = compare(OWN, {"node-2": replace(OWN, sources="b" * 64, folder="/other/mis")})
    assert found.mark == "error"
    assert found.found == ("node-2 has other sources of mis (bbbbbbbbbb in /other/mis, here aaaaaaaaaa in /here/mis)")


def test_two_kinds_of_nodes_are_two_lines():
    nodes = {
        "node-2": with_version("ray", "1"),
        "node-3": with_version("ray", "2"),
        "node-4": with_version("keras", "1"),
    }
    assert [found.found.split(" (")[0] for found in compare(OWN, nodes)] == [
        "node-2 has Ray 1",
        "node-3 has Ray 2",
        "node-4 has Keras 1",
    ]


def test_a_refusal_is_one_line_with_the_rule_what_was_found_and_what_to_do_once():
    errors = [Diagnosis("error", "versions", f"node-{number} has Ray 1", "install it") for number in (2, 3)]
    assert (
        str(refusal("all must agree", errors)) == "all must agree, got node-2 has Ray 1, node-3 has Ray 1; install it"
    )


def test_what_this_process_has_is_found_without_importing_it_and_judged():
    found = find_installation()
    assert set(found.versions) == set(NAMES)
    assert found.sources == find_installation().sources
    assert [diagnosis.mark for diagnosis in judge_own(found)] == ["ok"]
    ok, error = judge_own(replace(found, versions={**found.versions, "ray": "unknown"}))
    assert "Ray" not in ok.found
    assert (error.mark, error.found) == ("error", "not installed: Ray")


SILENT, OTHER = "has not answered within 60 s", "has another `mis`"


@pytest.mark.parametrize(
    ("silent", "kind"),
    [({"n2": SILENT}, NodeAwayError), ({"n2": OTHER}, MisError), ({"n2": SILENT, "n3": OTHER}, MisError)],
)
def test_nodes_that_do_not_answer_are_no_error_of_the_input_unless_something_else_is_wrong(monkeypatch, silent, kind):
    monkeypatch.setattr(nodes, "node_names", lambda: dict.fromkeys(silent, "Ray's name"))
    monkeypatch.setattr(nodes, "ask_installations", lambda _: Compared({}, {}, {}, silent))
    with pytest.raises(
        MisError, match="every node of the Ray cluster must have what this process has, got n2"
    ) as error:
        check_nodes_agree("an address", print)
    assert type(error.value) is kind
