import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from mis.params.space import Choice, Fixed, FloatRange, IntRange, grid, grid_size, suggest


def asked_for(space):
    """Return what Optuna is asked for, by name."""
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    suggest(trial, space)
    return trial.distributions


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (FloatRange(type="float", low=0.1, high=0.5), FloatDistribution(0.1, 0.5)),
        (FloatRange(type="float", low=1e-4, high=1e-1, log=True), FloatDistribution(1e-4, 1e-1, log=True)),
        (FloatRange(type="float", low=0.0, high=1.0, step=0.25), FloatDistribution(0.0, 1.0, step=0.25)),
        (IntRange(type="int", low=2, high=7), IntDistribution(2, 7)),
        (IntRange(type="int", low=1, high=64, log=True), IntDistribution(1, 64, log=True)),
        (IntRange(type="int", low=3, high=7, step=2), IntDistribution(3, 7, step=2)),
        (Choice(type="choice", values=("batch", 4, 0.5, True)), CategoricalDistribution(("batch", 4, 0.5, True))),
    ],
)
def test_each_kind_by_hand(ours, theirs):
    assert asked_for({"model.any": ours}) == {"model.any": theirs}


def test_names_and_their_order_stay(params):
    assert list(asked_for(params.tune.space)) == list(params.tune.space)
    assert asked_for({}) == {}


def test_a_condition_decides_in_each_trial():
    space = {
        "model.norm": Choice(type="choice", values=("batch", "group", "none")),
        "model.groups": Choice(type="choice", values=(2, 4), when={"model.norm": "group"}),
        "train.beta_1": FloatRange(type="float", low=0.5, high=0.9, when={"model.norm": ("batch", "none")}),
        "train.amsgrad": Fixed(type="fixed", value=True),
    }
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [suggest(study.ask(), space) for _ in range(30)]
    assert {values["model.norm"] for values in drawn} == {"batch", "group", "none"}
    for values in drawn:
        other = "model.groups" if values["model.norm"] == "group" else "train.beta_1"
        assert set(values) == {"model.norm", other, "train.amsgrad"}
        assert values["train.amsgrad"] is True


def test_a_grid_has_every_value():
    space = {
        "train.learning_rate": FloatRange(type="float", low=0.1, high=0.35, step=0.1),
        "model.depth": IntRange(type="int", low=1, high=3),
        "train.amsgrad": Fixed(type="fixed", value=True),
    }
    assert grid(space) == {"train.learning_rate": pytest.approx((0.1, 0.2, 0.3)), "model.depth": (1, 2, 3)}
    assert grid_size(space) == 9


def test_whatever_is_drawn_is_what_params_take(params):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        values = suggest(study.ask(), params.tune.space)
        drawn = params.override(values).flatten()
        assert {name: drawn[name] for name in values} == values
