"""Population based training (Jaderberg et al. 2017): the worst trials go on from the best ones' weights.

A trial keeps its number, its epochs and its history, and takes over another one's weights and values. Ray's scheduler
decides who goes on from whom (`mis.tune.ray.schedulers`); the weights go from trial to trial in the study's folder.
"""

import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from mis.files import read_json, write_json
from mis.params.base import Scalar
from mis.params.space import Range, Space
from mis.tune.study.store import StudyStore
from mis.tune.trial import Values

Mutation = Sequence[Scalar] | Callable[[], Scalar]
"""The list of a parameter's values, or what draws one of them anew."""


def clone(store: StudyStore, number: int, donor: int, values: Values, mark: str) -> None:
    """Let a trial go on from another one's weights with other values.

    Args:
        store: The study.
        number: The trial's number.
        donor: The number of the other one.
        values: What the trial has from now on.
        mark: The name of this change: it is made once, however often the call is repeated after a kill.
    """
    done = store.folder.trial(number).cloned
    if not done.exists() or read_json(done)["mark"] != mark:
        store.checkpoints(number).take_weights(store.checkpoints(donor))
        store.set_values(number, values)
        write_json(done, {"mark": mark, "donor": donor})


def donor_of(store: StudyStore, number: int) -> int | None:
    """Return the number of the trial whose weights this one has taken over last; None if it has not."""
    done = store.folder.trial(number).cloned
    return int(read_json(done)["donor"]) if done.exists() else None


def first_number(store: StudyStore, trial_id: str, number: int) -> int:
    """Return the number that Ray has first handed to a trial: later it hands over that of the donor.

    Args:
        store: The study.
        trial_id: Ray's name of the trial.
        number: What Ray has handed over now.
    """
    path = store.folder.ray_trial(trial_id)
    if not path.exists():
        write_json(path, number)
    return int(read_json(path))


def mutations(space: Space) -> dict[str, Mutation]:
    """Return for each searched parameter its list of values, or what draws one anew from Python's generator."""
    return {
        name: list(searched_range.grid()) if searched_range.is_listed else partial(_draw, searched_range)
        for name, searched_range in space.items()
        if searched_range.is_searched
    }


def _draw(searched_range: Range) -> Scalar:
    return searched_range.at(random.random())  # noqa: S311 - no secret


def changed(space: Space, values: Values) -> dict[str, Any]:
    """Return values that Ray has multiplied by 0.8 or 1.2, brought back into the space, and the mark of this change."""
    return {"values": clipped(space, values), "mark": uuid.uuid4().hex}


def clipped(space: Mapping[str, Any], values: Values) -> dict[str, Scalar]:
    """Return the values of the space that are nearest to some values."""
    return {name: space[name].clip(value) for name, value in values.items()}
