from dataclasses import fields
from math import inf

import pytest

from mis.errors import MisError
from mis.scaling.cost_sets import CostSet, Origin, read_cost_set, write_cost_set
from mis.scaling.costs import Costs, Load, all_reduce_s, compact_place, epoch_terms, restart_s, speeds, start_s
from mis.scaling.workload import Workload
from mis.tune.allocation import Place

ONE = Place(((0, 1),))


def test_an_epoch_by_hand():
    costs = Costs(step_s=0.5, sample_s=2.0, validation_sample_s=1.0, waiting_share=0.1, epoch_s=7.0, checkpoint_s=3.0)
    terms = epoch_terms(costs, Workload(10, 4, batch_size=4), Place(((0, 2),)), Load(2, 2))
    # Three steps; each device has two cases of each: .5 + 2 * 2 s, of which a tenth is waited for a doubling.
    assert terms.computing_s == pytest.approx(3 * 4.5)
    assert terms.waiting_s == pytest.approx(3 * 0.45)
    assert terms.validation_s == 2.0
    assert (terms.all_reduce_s, terms.input_s, terms.fixed_s, terms.checkpoint_s) == (0.0, 0.0, 7.0, 3.0)
    assert terms.total_s == pytest.approx(sum(getattr(terms, field.name) for field in fields(terms)))


def test_reading_is_waited_for_only_where_it_takes_longer_than_the_rest():
    costs = Costs(sample_s=1.0, sample_bytes=1e6, shared_bytes_per_s=2e6)
    few, many = (epoch_terms(costs, Workload(8, 0, 1), ONE, Load(count, count)) for count in (2, 6))
    assert few.input_s == 0.0, "a case is read in a second"
    assert many.input_s == pytest.approx(8 * 2.0), "six that read have a case in three seconds"


def test_an_all_reduce_between_nodes_adds_to_that_within():
    costs = Costs(gradient_bytes=8e9, within_latency_s=1.0, within_bytes_per_s=1e9, between_bytes_per_s=4e9)
    assert all_reduce_s(costs, ONE) == 0.0
    # Within: 2 messages, each with its latency and half of the bytes.
    assert all_reduce_s(costs, Place(((0, 2),))) == pytest.approx(2 * (1.0 + 4.0))
    assert all_reduce_s(costs, Place(((0, 2), (1, 2)))) == pytest.approx(10.0 + 2 * 1.0)


def test_starts_and_restarts_grow_with_the_devices():
    costs = Costs(start_s=10.0, restart_s=4.0, start_per_device_s=0.5)
    assert [start_s(costs, count) for count in (1, 5)] == [10.0, 12.0]
    assert restart_s(costs, 5) == 6.0


def test_speeds_are_those_of_an_epoch():
    costs = Costs(sample_s=1.0, epoch_s=8.0)
    found = speeds(costs, Workload(8, 0, batch_size=4), (2, 2), (1, 2, 4))
    assert [found(count) for count in (1, 2, 4)] == pytest.approx([1.0, 16 / 12, 16 / 10])


def test_a_place_is_on_as_few_nodes_as_possible():
    assert compact_place(3, (2, 4)) == Place(((1, 3),))
    assert compact_place(5, (2, 4)).counts == ((0, 1), (1, 4))


def test_a_cost_set_is_read_as_it_was_written(tmp_path):
    written = CostSet(
        "mine",
        Costs(sample_s=0.5, shared_bytes_per_s=1e9),
        {"sample_s": Origin("measured", "here"), "shared_bytes_per_s": Origin("assumed")},
        devices_per_node=8,
    )
    write_cost_set(tmp_path / "mine.json", written)
    assert read_cost_set(tmp_path / "mine.json") == written


def test_no_limit_is_null(tmp_path):
    (tmp_path / "x.yaml").write_text("{name: x, costs: {shared_bytes_per_s: {value: null, source: assumed}}}")
    assert read_cost_set(tmp_path / "x.yaml").costs.shared_bytes_per_s == inf


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "must have the keys name, costs"),
        ("{name: x}", "must have the keys name, costs"),
        ("{name: x, costs: {sample: 1}}", "there is no such cost, got sample; there are step_s"),
        ("{name: x, costs: {sample_s: -1}}", "sample_s must be a number of at least 0, got -1"),
        ("{name: x, costs: {shared_bytes_per_s: 0}}", "must be more than 0, or null for no limit"),
        ("{name: x, costs: {sample_s: {value: 1, source: guessed}}}", "must be one of measured, fitted"),
        ("{name: x, costs: {sample_s: {value: 1, source: published}}}", "must have a note that says where"),
        ("{name: x, devices_per_node: 0, costs: {}}", "devices_per_node must be a whole number of at least 1, got 0"),
        ("{name: [", "must be a readable YAML or JSON file"),
    ],
)
def test_a_file_that_is_no_cost_set_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(MisError, match=r"x\.yaml") as refused:
        read_cost_set(tmp_path / "x.yaml")
    assert message in str(refused.value)
