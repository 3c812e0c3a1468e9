import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mis.train.learning_rate import SetLearningRate, learning_rate_at


def rates(params, steps_per_epoch, **changes):
    changed = params.override({f"train.{name}": value for name, value in changes.items()}).train
    return [learning_rate_at(step, changed, steps_per_epoch) for step in range(changed.epochs * steps_per_epoch)]


def test_it_rises_by_the_same_amount_with_each_step_and_stays(params):
    found = rates(params, 2, epochs=4, warmup_epochs=2, learning_rate=0.4)
    assert found == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4])


def test_poly_and_cosine_by_hand(params):
    poly = rates(params, 2, epochs=2, learning_rate=0.1, learning_rate_decay="poly")
    assert poly == pytest.approx([0.1 * (1 - step / 4) ** 0.9 for step in range(4)])
    cosine = rates(params, 2, epochs=2, learning_rate=0.1, learning_rate_decay="cosine")
    assert cosine == pytest.approx([0.1, 0.1 * (1 + np.sqrt(0.5)) / 2, 0.05, 0.1 * (1 - np.sqrt(0.5)) / 2])


def test_the_decay_begins_where_the_warm_up_ends(params):
    found = rates(params, 2, epochs=3, warmup_epochs=1, learning_rate=0.1, learning_rate_decay="poly")
    assert found[:3] == pytest.approx([0.05, 0.1, 0.1])
    assert found[2:] == pytest.approx([0.1 * (1 - step / 4) ** 0.9 for step in range(4)])


@given(
    decay=st.sampled_from(["none", "poly", "cosine"]), warmup=st.integers(0, 6), epochs=st.integers(1, 5),
    steps=st.integers(1, 7),
)  # fmt: skip
def test_it_rises_then_never_rises_and_stays_within_its_full_value(params, decay, warmup, epochs, steps):
    found = rates(params, steps, epochs=epochs, warmup_epochs=warmup, learning_rate=0.3, learning_rate_decay=decay)
    assert all(0 < rate <= 0.3 for rate in found)
    begin, rest = found[: warmup * steps], found[warmup * steps :]
    assert begin == sorted(begin)
    assert rest == sorted(rest, reverse=True)


def test_a_step_behind_the_last_one_has_no_negative_rate(params):
    changed = params.override({"train.epochs": 2, "train.learning_rate_decay": "poly"}).train
    assert learning_rate_at(99, changed, 3) == 0


def test_it_is_set_before_each_step_by_the_step_s_number(params):
    changed = params.override({"train.epochs": 4, "train.warmup_epochs": 2, "train.learning_rate": 0.4}).train
    callback = SetLearningRate(changed, steps_per_epoch=2)

    class Model:
        class optimizer:  # noqa: N801
            learning_rate = None

    callback.set_model(Model)
    callback.on_epoch_begin(1)  # as a training that goes on does
    seen = []
    for batch in range(2):
        callback.on_train_batch_begin(batch)
        seen.append(Model.optimizer.learning_rate)
    assert seen == pytest.approx([0.3, 0.4])
