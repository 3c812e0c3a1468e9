"""Pictures of simulated speed-ups."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from mis.params.scaling import MODES
from mis.scaling.curves import SimulatedPoint
from mis.scaling.reported import GPUS, REPORTED
from mis.style import GREY, INK, MODE_COLOURS, MODE_MARKS, new_figure, styled


@styled
def curves(points: Sequence[SimulatedPoint], title: str) -> Figure:
    """Draw the speed-up of each mode by the number of devices, both in powers of two, and the paper's two points."""
    figure = new_figure(5.2)
    axes = figure.subplots()
    counts = sorted({point.devices for point in points})
    axes.plot(counts, counts, color=GREY, linestyle=(0, (4, 3)), label="ideal")
    for mode in MODES:
        of_mode = [point for point in points if point.mode == mode]
        axes.plot(
            [point.devices for point in of_mode],
            [point.speedup for point in of_mode],
            color=MODE_COLOURS[mode],
            marker=MODE_MARKS[mode],
            linewidth=2,
            label=mode,
        )
    if max(counts) >= GPUS:
        for reported, speedup in REPORTED.items():
            axes.plot([GPUS], [speedup], color=INK, marker=MODE_MARKS[reported], markersize=6, linestyle="none")
            axes.annotate(
                f"the paper, {reported}: x{speedup:g}",
                (GPUS, speedup),
                xytext=(8, 0 if reported == "experiment" else -12),
                textcoords="offset points",
            )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    ticks = [2**power for power in range(max(counts).bit_length())]
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("devices")
    axes.set_ylabel("speed-up against one device")
    axes.set_title(title)
    axes.legend(loc="upper left")
    return figure
