"""Population based training (Jaderberg et al. 2017): the worst trials go on from the best ones' weights.

A trial keeps its number, its epochs and its history, and takes over another one's weights and values. Who does so, and
with which values, is a function of what the trials have reached by then, the seed, the trial and its epoch: a search
that was killed decides the same again. The rule is that of Ray Tune's scheduler, which keeps what it knows in memory.
"""

import math
import random
from collections.abc import Mapping

from mis.params.base import Scalar
from mis.params.space import Range
from mis.params.tune import TuneParams
from mis.tune.trial import Values

QUARTER = 0.25
"""The part of the trials that goes on from the weights of the best such part."""

DRAWN_ANEW = 0.25
"""The share of the values that are drawn anew; the others are changed a little."""

FACTORS = (0.8, 1.2)
"""A number is multiplied by one of them."""


def exploit(params: TuneParams, number: int, epoch: int, reached: Mapping[int, float]) -> int | None:
    """Return the trial from whose weights a trial goes on after an epoch; None if it goes on from its own.

    Args:
        params: The search.
        number: The trial's number.
        epoch: The epoch's number, from 1.
        reached: What the trials that run have reached, the trial itself included: the larger the better.
    """
    if epoch % params.scheduler.interval_epochs or epoch >= params.epochs or len(reached) < 2:
        return None
    order = sorted(reached, key=lambda trial: (reached[trial], trial))
    quarter = min(math.ceil(len(order) * QUARTER), len(order) // 2)
    if number not in order[:quarter]:
        return None
    return _generator(params, number, epoch, "exploit").choice(order[-quarter:])


def explore(params: TuneParams, number: int, epoch: int, values: Values) -> dict[str, Scalar]:
    """Return the values with which a trial goes on that takes over another one's weights.

    Args:
        params: The search.
        number: The trial's number.
        epoch: The epoch's number, from 1.
        values: Those of the other trial.
    """
    generator = _generator(params, number, epoch, "explore")
    return {name: _explored(params.space[name], value, generator) for name, value in values.items()}


def _explored(searched_range: Range, value: Scalar, generator: random.Random) -> Scalar:
    if not searched_range.is_searched:
        return value
    anew = generator.random() < DRAWN_ANEW
    if searched_range.is_listed:
        listed = list(searched_range.grid())
        if anew or value not in listed:
            return generator.choice(listed)
        place = listed.index(value) + generator.choice((-1, 1))
        return listed[min(max(place, 0), len(listed) - 1)]
    if anew:
        return searched_range.at(generator.random())
    return searched_range.clip(float(value) * generator.choice(FACTORS))


def _generator(params: TuneParams, number: int, epoch: int, what: str) -> random.Random:
    return random.Random(f"{params.sampler.seed} {number} {epoch} {what}")  # noqa: S311 - no secret
