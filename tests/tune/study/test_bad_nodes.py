"""Which nodes are left out."""

from mis.tune.study.bad_nodes import BadNodes


def test_a_node_is_left_out_after_three_different_trials_in_a_row_with_the_same_reason():
    nodes = BadNodes()
    assert not nodes.failed("a", "OSError: no device", 0)
    assert not nodes.failed("a", "OSError: no device", 0)
    assert not nodes.failed("a", "OSError: no device", 1)
    assert nodes.failed_on("a") == {0, 1}
    assert nodes.failed("a", "OSError: no device", 2)
    assert nodes.left_out == {"a": "OSError: no device"}
    assert not nodes.failed("a", "OSError: no device", 3), "it is said once"
    assert not nodes.failed("b", "OSError: no device", 0), "another node"


def test_one_trial_says_nothing_of_its_node_however_often_it_fails():
    nodes = BadNodes()
    assert not any(nodes.failed("a", "its process died", 7) for _ in range(50))


def test_an_epoch_or_another_reason_between_them_is_the_end_of_the_row():
    nodes = BadNodes()
    for number in range(2):
        nodes.failed("a", "OSError: no device", number)
    nodes.had_epoch("a")
    for number in range(2, 4):
        assert not nodes.failed("a", "OSError: no device", number)
    assert not nodes.failed("a", "its process died", 4)
    assert not nodes.failed("a", "OSError: no device", 5)
    assert nodes.left_out == {}


def test_paths_and_numbers_make_no_other_reason():
    nodes = BadNodes()
    said = "it did no step for {} s; /studies/x/trials/00{}/trace.txt says where it was"
    assert [nodes.failed("a", said.format(1800.5 + number, number), number) for number in range(3)] == [0, 0, 1]
