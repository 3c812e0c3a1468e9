"""What a study would do, without doing it: `python -m mis.tune --dry-run`."""

from collections.abc import Iterator

from mis.data.records.index import Records
from mis.data.records.prepare import find_records
from mis.data.records.reader import check_patch, read_records, size_bytes
from mis.params.load import Params
from mis.params.train import TrainParams
from mis.settings import Settings
from mis.track.recording import reader
from mis.train.allocate import Share
from mis.tune.history import Estimate, estimate, starting_points
from mis.tune.resources import resources
from mis.tune.samplers import number_of_trials
from mis.words import counted, duration


def preview(params: Params, settings: Settings) -> str:
    """Return the space, the number of trials, the resources, and how long it will take, as a text.

    Raises:
        MisError: As `mis.tune.session.tune`: what would be refused there is refused here.
    """
    search = params.tune
    params.check_spread("tune.devices_per_trial", search.devices)
    folder = find_records(params.data, settings, make=False)
    records, earlier = None if folder is None else read_records(folder), reader(settings)
    if records is not None:
        check_patch(records, params.train.patch_size)
    starts, size = starting_points(params, earlier), 0 if records is None else size_bytes(records)
    with resources(search, size, settings) as available:
        pass  # it is known, and the cluster left again
    trials = number_of_trials(search.sampler, search.space, search.num_samples)
    estimated = (
        None
        if records is None or earlier is None
        else estimate(params, earlier, records.digest, trials, available.share.concurrent)
    )
    return "\n".join(
        [
            "space:",
            *(f"  {line}" for line in _table(params)),
            f"trials: {_trials(params, trials, len(starts))}",
            *(f"  {number}: {', '.join(f'{k} {v}' for k, v in point.items())}" for number, point in enumerate(starts)),
            f"epochs: {search.epochs} for each trial, scheduler {search.scheduler.name}",
            f"budget: {_budget(params)}",
            f"devices: {_devices(available.nodes, available.share)}{_growth(params)}",
            f"data: {_data(records, params.train, size, in_memory=available.in_memory)}",
            f"time: {_time(estimated)}",
            "nothing was run",
        ]
    )


def _table(params: Params) -> Iterator[str]:
    space = params.tune.space
    width = max(len(name) for name in space)
    for name, searched in space.items():
        conditions = [f"{other} is {' or '.join(map(str, values))}" for other, values in searched.conditions.items()]
        yield f"{name:<{width}}  {searched.describe()}" + (f", where {' and '.join(conditions)}" if conditions else "")


def _trials(params: Params, trials: int, starts: int) -> str:
    given = f", of which {min(starts, trials)} from starting points" if starts else ""
    second = params.tune.second_objective
    aims = "validation Dice" if second is None else f"validation Dice and {second}"
    return f"{trials}{given}, sampler {params.tune.sampler.name}, for {aims}"


def _budget(params: Params) -> str:
    search = params.tune
    limits = [] if search.hours is None else [f"at most {search.hours:g} h"]
    limits += [] if search.target_dice is None else [f"until a Dice of {search.target_dice:g}"]
    return ", ".join(limits) or "the trials alone"


def _devices(nodes: int, share: Share) -> str:
    kind = "GPU" if "GPU" in share.bundle else "CPU core"
    each = counted(share.replicas, kind) if share.fraction == 1 else f"{share.fraction:g} of a {kind}"
    each += f" ({share.processes} processes)" if share.processes > 1 else ""
    trials, where = counted(share.concurrent, "trial"), counted(nodes, "node")
    return f"{trials} at once on {where}, each on {each} with {counted(share.threads, 'CPU thread')} a device"


def _growth(params: Params) -> str:
    return "; those that are idle join running trials" if params.tune.allocation == "elastic" else ""


def _data(records: Records | None, train: TrainParams, size: int, *, in_memory: bool) -> str:
    if records is None:
        return "the records for these parameters are not there: they are made first"
    place = "read once into each node's memory" if in_memory else "read from their files by each trial"
    split = records.split_for(train)
    return f"{len(split.train)} cases to train on, {len(split.val)} for validation, {size / 1e6:.1f} MB, {place}"


def _time(estimated: Estimate | None) -> str:
    if estimated is None:
        return "not known: there are no earlier trials on these records with these parameters"
    trials = counted(estimated.trials, "earlier trial")
    return (
        f"about {duration(estimated.seconds)} where none is stopped early (from {trials}: "
        f"{estimated.epoch_s:.3g} s an epoch, {estimated.beside_s:.3g} s a trial beside its epochs)"
    )
