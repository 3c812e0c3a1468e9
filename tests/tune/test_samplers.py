import optuna
import pytest

from mis.params.space import FloatRange, suggest
from mis.params.tune import SamplerParams
from mis.tune.samplers import STARTUP_TRIALS, make_sampler


def draw(space, *, name="tpe", seed=0, count=8, score=lambda _: 0.0):
    """Return what a study suggests, one trial after another."""
    study = optuna.create_study(direction="maximize")
    drawn = []
    for number in range(count):
        study.sampler = make_sampler(SamplerParams(name=name, seed=seed), {}, number)
        trial = study.ask()
        suggest(trial, space)
        drawn.append(trial.params)
        study.tell(trial, score(trial.params))
    return drawn


@pytest.fixture
def space(params):
    return params.tune.space


@pytest.mark.parametrize("name", ["tpe", "random", "gp"])
def test_the_seed_chooses(space, name):
    assert draw(space, name=name, seed=1) == draw(space, name=name, seed=1)
    assert draw(space, name=name, seed=1) != draw(space, name=name, seed=2)


def test_random_is_blind_to_what_came_out_and_tpe_is_not(space):
    scores = (lambda values: values["train.learning_rate"], lambda values: -values["train.learning_rate"])
    up, down = (draw(space, name="random", count=12, score=score) for score in scores)
    assert up == down
    up, down = (draw(space, name="tpe", count=12, score=score) for score in scores)
    assert up[:STARTUP_TRIALS] == down[:STARTUP_TRIALS]
    assert up != down


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes"])
def test_a_sampler_goes_where_the_scores_are_high(name):
    space = {key: FloatRange(type="float", low=0.0, high=1.0) for key in ("train.beta_1", "train.beta_2")}
    drawn = draw(space, name=name, count=40, score=lambda one: -abs(one["train.beta_1"] - 0.8))
    late = [one["train.beta_1"] for one in drawn[20:]]
    assert sum(abs(value - 0.8) for value in late) / len(late) < 0.2  # 0.34 for values drawn evenly
