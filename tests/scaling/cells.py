"""Cells of a comparison, made by hand."""

from mis.params.scaling import each_of
from mis.scaling.cells import MeasuredCell, TimedTrial
from mis.scaling.plan import Cell
from mis.scaling.timeline import Stretch
from mis.tune.allocation import Place

EPOCHS = 2


def trial(number, begin_s, end_s, devices=1, reached_s=None):
    """Return a trial whose epochs have the same length; a quarter of an epoch is validation."""
    epoch_s = (end_s - begin_s) / EPOCHS
    return TimedTrial(number, begin_s, end_s, EPOCHS, 0.5, reached_s, devices, epoch_s, 0.75 * epoch_s, 0.02, 0.1, 0.2)


def cell(mode, devices, number=0, single_s=2.0, trials=4, hybrid=None):
    """Return a cell in which several devices are as fast as one is as often."""
    each = each_of(mode, devices, hybrid)
    length_s, at_once = single_s / each, devices // each
    timed, stretches = [], []
    for index in range(trials):
        begin_s = index // at_once * length_s
        timed.append(trial(index, begin_s, begin_s + length_s, each))
        stretches.append(Stretch(index, Place(((0, each),)), begin_s, begin_s + length_s, EPOCHS))
    return MeasuredCell(Cell(mode, devices, each, number), (devices,), 3.0, 2.0, tuple(timed), tuple(stretches))
