"""A picture of a case as its data set has it: three planes in four modalities, and the label's outlines."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from mis.data.case import MODALITIES
from mis.data.geometry import Geometry, Shape, Spacing, take_window
from mis.data.pictures.colours import REGION_COLOURS, REGION_DASHES
from mis.data.pictures.planes import PLANES, mark_sides, outline, take_plane
from mis.data.records.preprocess import Brain, filled, region_bits, region_channels
from mis.errors import MisError
from mis.files import new_file
from mis.style import WIDTH, png
from mis.words import counted

WINDOW = (0.5, 99.5)
"""The percentiles of the brain that are drawn black and white: a bright vessel must not darken the rest."""
MARGIN = 0.06
"""Air around the brain as a share of its longest edge: room for the letters of the sides, and for whole outlines."""

PHANTOM = "SYNTHETIC PHANTOM, no patient data"
AMBER, LIGHT, DIM, BLACK = "#ffb000", "#f2f2f2", "#a8a8a8", "#000000"
CONVENTION = (
    "Neurological convention: the patient's left (L) is on the left, anterior (A) or superior (S) is up. "
    "Slices count from 0, in RAS."
)

TALLEST_IN = 9.0
"""Most inches of the three planes, one above another: a grid with an edge of metres still makes a picture."""
HEADER_IN, NAMES_IN, FOOTER_IN, GAP_IN = 0.75, 0.3, 0.62, 0.08


@dataclass(frozen=True)
class View:
    """The volumes that are drawn of a case: its brain in RAS, with air around it.

    Attributes:
        case: The name of the case.
        source: The name of the data set, and its layout.
        is_phantom: Whether the data set is synthetic.
        geometry: Where the box of the brain lies.
        first: The index of the first voxel that is drawn, in the RAS grid; negative where the air lies outside of it.
        grey: uint8 (x, y, z, modality): grey levels, 0 outside of the brain.
        masks: uint8 (x, y, z, region), 0 and 1; None where there is no label.
        regions: The names of the masks' channels.
        errors: The errors that keep the case out, as sentences.
    """

    case: str
    source: str
    is_phantom: bool
    geometry: Geometry
    first: Shape
    grey: NDArray[np.uint8]
    masks: NDArray[np.uint8] | None
    regions: tuple[str, ...]
    errors: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        brain: Brain,
        geometry: Geometry,
        regions: Mapping[str, tuple[int, ...]],
        *,
        case: str,
        source: str,
        is_phantom: bool,
        errors: tuple[str, ...] = (),
    ) -> "View":
        """Bring a case's voxels to grey levels.

        Args:
            brain: The voxels of the case, cropped to the brain.
            geometry: Where they lie.
            regions: The label values of each region.
            case: The name of the case.
            source: The name of the data set, and its layout.
            is_phantom: Whether the data set is synthetic.
            errors: The errors that keep the case out, as sentences.

        Raises:
            MisError: All its voxels are 0.
        """
        if not len(brain.values):
            raise MisError(f"case {case} must have voxels other than 0 to be shown", got="none")
        spacing = voxel_sizes(geometry.box_affine)
        air_mm = MARGIN * max(spacing * brain.mask.shape)
        x, y, z = (int(np.ceil(air_mm / edge)) for edge in spacing)
        size = (brain.mask.shape[0] + 2 * x, brain.mask.shape[1] + 2 * y, brain.mask.shape[2] + 2 * z)

        def padded(volume: NDArray[Any]) -> NDArray[Any]:
            return take_window(volume, (-x, -y, -z), size)

        bits = None if brain.label is None else padded(region_bits(brain.label, regions))
        return cls(
            case=case,
            source=source,
            is_phantom=is_phantom,
            geometry=geometry,
            first=(geometry.start[0] - x, geometry.start[1] - y, geometry.start[2] - z),
            grey=padded(filled(brain.mask, grey_levels(brain.values))),
            masks=None if bits is None else region_channels(bits, range(len(regions))),
            regions=tuple(regions),
            errors=errors,
        )

    @property
    def title(self) -> str:
        """The title of the pictures: the case, and how many errors it has."""
        return self.case + (f"   ({counted(len(self.errors), 'error')})" if self.errors else "")

    @property
    def spacing_mm(self) -> Spacing:
        """The edges of a voxel that is drawn, (x, y, z) in millimetres."""
        x, y, z = (float(edge) for edge in voxel_sizes(self.geometry.box_affine))
        return x, y, z

    @property
    def size_mm(self) -> Spacing:
        """The edges of the volume that is drawn, (x, y, z) in millimetres."""
        x, y, z = (float(n * edge) for n, edge in zip(self.grey.shape[:3], self.spacing_mm, strict=True))
        return x, y, z

    @cached_property
    def voxels(self) -> dict[str, int]:
        """The number of voxels of each region; empty where there is no label."""
        counts = () if self.masks is None else np.count_nonzero(self.masks, axis=(0, 1, 2)).tolist()
        return dict(zip(self.regions, counts, strict=False))

    def volumes_cm3(self) -> dict[str, float]:
        """Return the volume of each region in cubic centimetres."""
        voxel_cm3 = float(np.prod(self.spacing_mm)) / 1000
        return {region: number * voxel_cm3 for region, number in self.voxels.items()}

    @cached_property
    def centre(self) -> Shape:
        """The index along each axis of the slice with most of the tumour, or of the middle where there is no tumour."""
        if self.masks is None or not self.masks.any():
            x, y, z = (n // 2 for n in self.grey.shape[:3])
        else:
            tumour = self.masks.any(axis=-1)
            areas = (tumour.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3))
            x, y, z = (int(area.argmax()) for area in areas)
        return x, y, z

    def grid(self) -> str:
        """Return the file's shape and spacing in RAS as text, and what it was resampled to."""
        file_spacing_mm = voxel_sizes(np.asarray(self.geometry.affine))
        axes = np.argsort([axis for axis, _ in self.geometry.orientation])
        text = f"{_times(self.geometry.ras_shape)} voxels of {_times(file_spacing_mm[axes])} mm"
        if self.geometry.grid != self.geometry.ras_shape:
            text += f", drawn and counted in {_times(self.geometry.grid)} of {_times(self.spacing_mm)} mm"
        return text


def grey_levels(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the grey levels of each modality of a brain: 0 to 255 between the percentiles of `WINDOW`.

    Args:
        values: float32 (voxel, modality).

    Returns:
        uint8 of the same shape.
    """
    low, high = np.percentile(values, WINDOW, axis=0).astype(np.float32)
    scale = 255 / np.where(high > low, high - low, 1)
    levels: NDArray[np.uint8] = ((values - low) * scale).clip(0, 255).round().astype(np.uint8)
    return levels


def draw_planes(view: View, path: Path) -> None:
    """Write the picture of a case as a PNG file, the same bytes for the same voxels."""
    mpl.use("Agg")
    with mpl.rc_context({"text.parse_math": False, "font.size": 9.5, "text.color": LIGHT}):
        content = png(_figure(view))
    with new_file(path) as unfinished:
        unfinished.write_bytes(content)


def _figure(view: View) -> Figure:
    """Return the figure of a case: each plane with its proportions in millimetres, all to one scale."""
    x_mm, y_mm, z_mm = view.size_mm
    column_in = WIDTH / len(MODALITIES)
    in_per_mm = min((column_in - GAP_IN) / max(x_mm, y_mm), TALLEST_IN / (y_mm + 2 * z_mm))
    height = HEADER_IN + NAMES_IN + FOOTER_IN + 3 * GAP_IN + in_per_mm * (y_mm + 2 * z_mm)
    figure = Figure(figsize=(WIDTH, height), facecolor=BLACK)
    for number, name in enumerate(MODALITIES):
        middle, top = (number + 0.5) * column_in, height - HEADER_IN - NAMES_IN / 2
        figure.text(middle / WIDTH, top / height, name, ha="center", va="center", weight="bold")
    _add_title(figure, view)
    _add_legend(figure, view)
    bottom = height - HEADER_IN - NAMES_IN
    for plane, axis in reversed(PLANES):
        across, up = (length * in_per_mm for other, length in enumerate(view.size_mm) if other != axis)
        bottom -= up + GAP_IN
        index = view.centre[axis]
        for number in range(len(MODALITIES)):
            left = (number + 0.5) * column_in - across / 2
            cell = figure.add_axes((left / WIDTH, bottom / height, across / WIDTH, up / height))
            _draw_plane(cell, view, number, axis, index)
            if number == 0:
                mark_sides(cell, plane, DIM)
        position = f"{plane}, {'xyz'[axis]} {view.first[axis] + index}"
        figure.text(0.012, (bottom + up) / height, position, va="top", color=DIM, size=8.5)
    return figure


def _draw_plane(axes: Axes, view: View, modality: int, axis: int, index: int) -> None:
    axes.set_axis_off()
    grey = take_plane(view.grey[..., modality], axis, index)
    axes.imshow(grey, cmap="gray", origin="lower", vmin=0, vmax=255, aspect="auto")
    if view.masks is not None:
        outline(axes, take_plane(view.masks, axis, index), view.regions)


def _add_title(figure: Figure, view: View) -> None:
    height = figure.get_figheight()
    figure.text(0.012, 1 - 0.14 / height, view.title, size=15, weight="bold", va="top")
    figure.text(0.012, 1 - 0.48 / height, f"{view.source}: {view.grid()}", color=DIM, va="top")
    if view.is_phantom:
        figure.text(0.988, 1 - 0.16 / height, PHANTOM, size=13, weight="bold", color=AMBER, ha="right", va="top")


def _add_legend(figure: Figure, view: View) -> None:
    height = figure.get_figheight()
    figure.text(0.012, 0.14 / height, CONVENTION, size=8, color=DIM)
    if not view.voxels:
        figure.text(0.012, 0.36 / height, "No label: planes through the middle of the brain.", color=LIGHT)
        return
    volumes = view.volumes_cm3()
    handles = [
        Line2D(
            [],
            [],
            color=REGION_COLOURS[name],
            linestyle=REGION_DASHES[name],
            linewidth=1.8,
            label=f"{name}  {number:,} voxels  {volumes[name]:.1f} cm³",
        )
        for name, number in view.voxels.items()
    ]
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.004, 0.27 / height),
        ncols=len(handles),
        frameon=False,
        labelcolor=LIGHT,
        handlelength=2.6,
    )


def _times(numbers: Any) -> str:  # noqa: ANN401 - any three numbers
    """Return numbers as text with x between them."""
    return " x ".join(f"{number:.4g}" for number in numbers)
