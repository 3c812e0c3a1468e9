"""A synthetic data set in the layout of MSD Task01_BrainTumour, where no patient data is at hand.

Schematic brains with gliomas in four modalities, made to exercise and compare training, not to
resemble a cohort: a figure reached on the phantom says nothing about BraTS.

What a case is made of is sampled (`sample_case`) apart from its drawing (`render_case`). Lengths
are millimetres of the anatomy: one voxel is 1 mm at (240, 240, 155); in a smaller volume the same
brain is drawn with fewer voxels. The frame is RAS, with its origin in the middle of the volume.
"""

import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from tqdm import tqdm

from mis.errors import MisError
from mis.files import new_folder
from mis.params import PhantomParams

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Labels = NDArray[np.uint8]
Shape = tuple[int, int, int]
Point = tuple[float, float, float]

MODALITIES = ("FLAIR", "T1w", "t1gd", "T2w")
LABELS = ("background", "edema", "non-enhancing tumor", "enhancing tumour")
EDEMA, CORE, ENHANCING = 1, 2, 3
CSF, GREY, WHITE = 1, 2, 3
FLAIR = 0
PHANTOM_MARK = "Synthetic phantom"
"""How the description in dataset.json begins: this folder may be made again."""
MIN_AXIS = 16
"""Below this a brain is under 12 voxels across and a tumour's parts are single voxels."""
FIELD_OF_VIEW_MM = (155.0, 190.0, 155.0)
"""Holds every brain that is sampled: about 140 x 175 x 140 mm, as in BraTS, and its variation."""

SIGNAL: dict[str, tuple[float, float, float, float]] = {
    "csf": (0.30, 0.32, 0.34, 1.90),
    "grey": (0.98, 0.70, 0.73, 1.10),
    "white": (0.85, 1.00, 1.00, 0.82),
    "edema": (1.30, 0.80, 0.80, 1.38),
    "core": (0.95, 0.52, 0.54, 1.55),
    "enhancing": (1.10, 0.74, 1.90, 1.28),
    "vessel": (0.70, 0.75, 1.75, 0.70),
}
"""Mean signal in FLAIR, T1w, t1gd, T2w, relative to white matter in T1w; schematic, set by eye."""
SIGNAL_SPREAD: dict[str, float] = {
    "csf": 0.06, "grey": 0.02, "white": 0.02, "edema": 0.07, "core": 0.14, "enhancing": 0.06, "vessel": 0.08,
}  # fmt: skip
"""Relative standard deviation of each mean between cases."""


@dataclass(frozen=True)
class Anatomy:
    """The healthy brain of a case."""

    size: float
    """Scale of the whole brain, about 1."""
    tilt_rad: float
    """Rotation of the head in the axial plane."""
    ventricles: float
    """Scale of the ventricles, about 1."""
    sulcus_depth_mm: float
    sulcus_width_mm: float
    cortex_mm: float


@dataclass(frozen=True)
class Tumour:
    """Where a tumour sits, how large it and its parts are, and how irregular."""

    centre_mm: Point
    stretch: Point
    """Semi-axes relative to a ball's."""
    volume: float
    """Whole tumour as a share of the brain."""
    core: float
    """Core (labels 2 and 3) as a share of the whole tumour."""
    necrosis: float
    """Label 2 as a share of the core; 1 in about a fifth of the cases, where nothing enhances."""
    roughness: float
    """Displacement of the borders as a share of the radius."""


@dataclass(frozen=True)
class Confounders:
    """What is bright and no tumour."""

    lesions: tuple[tuple[Point, float], ...]
    """White matter lesions: centre and radius in mm; bright in FLAIR alone."""
    lesion_gain: float
    caps_mm: float
    """Thickness of the periventricular caps; bright in FLAIR alone."""
    cortex_gain: float
    """How much brighter patches of the cortex are in FLAIR."""
    shading_gain: float
    """How much brighter broad patches of the tissue are in FLAIR."""


@dataclass(frozen=True)
class Scan:
    """How the scanner shows it; rows and entries in the order of `MODALITIES`."""

    signal: tuple[tuple[str, tuple[float, ...]], ...]
    """Mean of each tissue in the four modalities."""
    scale: tuple[float, ...]
    """Arbitrary units that white matter in T1w would have."""
    bias: tuple[float, ...]
    """Standard deviation of the bias field's logarithm."""
    noise: tuple[float, ...]
    """Standard deviation of the noise in both channels of the receiver, as a share of `scale`."""


@dataclass(frozen=True)
class CaseSample:
    """All that a case is drawn from."""

    anatomy: Anatomy
    tumour: Tumour
    confounders: Confounders
    scan: Scan
    texture_seed: int
    """Seed of the smooth random fields and of the noise."""


@dataclass(frozen=True)
class Grid:
    """The voxels that a brain is drawn on: a box of the volume that holds the field of view.

    Args:
        shape: Voxels of the whole volume in (x, y, z).
    """

    shape: Shape

    @property
    def voxel_mm(self) -> float:
        """Edge of a voxel in millimetres of the anatomy."""
        return max(extent / n for extent, n in zip(FIELD_OF_VIEW_MM, self.shape, strict=True))

    @property
    def soft_mm(self) -> float:
        """Half the width over which one tissue passes into the next: partial volume."""
        return max(0.7, 0.5 * self.voxel_mm)

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """Where the field of view lies in the volume."""
        sizes = [min(n, int(np.ceil(e / self.voxel_mm))) for n, e in zip(self.shape, FIELD_OF_VIEW_MM, strict=True)]
        starts = [(n - size) // 2 for n, size in zip(self.shape, sizes, strict=True)]
        x, y, z = (slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
        return x, y, z

    @property
    def box_shape(self) -> Shape:
        """Voxels of the box in (x, y, z)."""
        x, y, z = (part.stop - part.start for part in self.box)
        return x, y, z

    def coordinates(self, tilt_rad: float) -> Array:
        """Return (3, x, y, z): each voxel's place in mm of the anatomy, tilted about the z axis."""
        axes = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * self.voxel_mm for n in self.box_shape]
        x, y, z = np.meshgrid(*axes, indexing="ij")
        cos, sin = np.cos(tilt_rad), np.sin(tilt_rad)
        return np.stack([cos * x - sin * y, sin * x + cos * y, z]).astype(np.float32)

    def paste(self, box: NDArray[Any]) -> NDArray[Any]:
        """Return the whole volume, zero outside the box; axes after the third are kept."""
        volume = np.zeros(self.shape + box.shape[3:], box.dtype)
        volume[self.box] = box
        return volume


def smooth_field(grid: Grid, cell_mm: float, rng: Generator) -> Array:
    """Return a smooth random field: a cubic B-spline with normal control points.

    The sums have four terms each and no matrix product: a BLAS would round them differently with
    another number of threads, and the bytes written would depend on the machine's load.

    Args:
        grid: Where it is wanted.
        cell_mm: Distance of the control points; raised to two voxels where it is less.
        rng: Source of the control points.

    Returns:
        (x, y, z) of the grid's box; mean 0, standard deviation about 1.
    """
    cell = max(cell_mm, 2 * grid.voxel_mm) / grid.voxel_mm
    counts = [int((n - 1) / cell) + 4 for n in grid.box_shape]
    field = rng.standard_normal(counts, dtype=np.float32)
    for axis, n in enumerate(grid.box_shape):
        field = _upsample(field, axis, np.arange(n) / cell)
    # The mean over a cell of the squared weights is 151/315 in each axis.
    return field / np.float32((151 / 315) ** 1.5)


def _upsample(control: Array, axis: int, position: NDArray[np.float64]) -> Array:
    """Return the spline at `position`, in cells, along one axis."""
    index, u = np.floor(position).astype(int), position % 1
    weights = ((1 - u) ** 3 / 6, (3 * u**3 - 6 * u**2 + 4) / 6, (-3 * u**3 + 3 * u**2 + 3 * u + 1) / 6, u**3 / 6)
    along = [1, 1, 1]
    along[axis] = len(position)
    result: Array = sum(
        np.take(control, index + k, axis=axis) * weight.astype(np.float32).reshape(along)
        for k, weight in enumerate(weights)
    )  # type: ignore[assignment]  # sum's start value 0 is never its result
    return result


# ---- What a case is made of ----


def sample_case(rng: Generator) -> CaseSample:
    """Sample the brain, the tumour, the confounders and the scan of one case."""
    return CaseSample(
        _sample_anatomy(rng), _sample_tumour(rng), _sample_confounders(rng), _sample_scan(rng), int(rng.integers(2**63))
    )


def _sample_anatomy(rng: Generator) -> Anatomy:
    return Anatomy(
        size=rng.uniform(0.95, 1.04),
        tilt_rad=rng.uniform(-0.08, 0.08),
        ventricles=rng.uniform(0.8, 1.35),
        sulcus_depth_mm=rng.uniform(11, 16),
        sulcus_width_mm=rng.uniform(0.7, 1.5),
        cortex_mm=rng.uniform(2.6, 3.4),
    )


def _sample_tumour(rng: Generator) -> Tumour:
    """Sample a glioma in a hemisphere's white matter; about one in five does not enhance."""
    side = rng.choice((-1.0, 1.0))
    stretch = np.exp(rng.normal(0, 0.18, 3))
    return Tumour(
        centre_mm=(float(side * rng.uniform(16, 44)), rng.uniform(-48, 50), rng.uniform(-8, 40)),
        stretch=_point(stretch / stretch.prod() ** (1 / 3)),
        volume=float(np.exp(rng.uniform(np.log(0.05), np.log(0.19)))),
        core=rng.uniform(0.22, 0.5),
        necrosis=1.0 if rng.random() < 0.2 else rng.uniform(0.3, 0.7),
        roughness=rng.uniform(0.14, 0.30),
    )


def _sample_confounders(rng: Generator) -> Confounders:
    lesions = [
        (
            (float(rng.choice((-1.0, 1.0)) * rng.uniform(14, 42)), rng.uniform(-50, 50), rng.uniform(0, 42)),
            rng.uniform(3, 7),
        )
        for _ in range(rng.integers(4, 16))
    ]
    return Confounders(
        lesions=tuple(lesions),
        lesion_gain=rng.uniform(0.3, 0.6),
        caps_mm=rng.uniform(2, 6),
        cortex_gain=rng.uniform(0.15, 0.45),
        shading_gain=rng.uniform(0.1, 0.35),
    )


def _sample_scan(rng: Generator) -> Scan:
    return Scan(
        signal=tuple(
            (tissue, tuple(np.multiply(mean, np.exp(rng.normal(0, SIGNAL_SPREAD[tissue], 4))).tolist()))
            for tissue, mean in SIGNAL.items()
        ),
        scale=tuple(np.exp(rng.uniform(np.log(250), np.log(2500), 4)).tolist()),
        bias=tuple(rng.uniform(0.04, 0.12, 4).tolist()),
        noise=tuple(rng.uniform(0.02, 0.05, 4).tolist()),
    )


def _point(values: NDArray[np.floating[Any]]) -> Point:
    x, y, z = values.tolist()
    return x, y, z


# ---- Drawing the brain ----


@dataclass(frozen=True)
class Brain:
    """The healthy brain on a grid's box; every array has axes (x, y, z).

    CSF, grey and white matter are shares of a voxel in [0, 1] that add up to 1 within the mask.
    """

    grid: Grid
    points: Array
    """(3, x, y, z): each voxel's place in mm."""
    mask: Mask
    csf: Array
    grey: Array
    white: Array
    depth_mm: Array
    """Below the brain's surface; negative outside."""
    ventricle_mm: Array
    """Distance into a ventricle; negative outside."""


def _inside_ellipsoid(points: Array, centre: Point, semi_axes: Point) -> Array:
    """Return the distance into an ellipsoid, negative outside, to first order at its surface.

    Args:
        points: (3, x, y, z) in mm.
        centre: In mm.
        semi_axes: In mm.
    """
    scaled = [(p - c) / a for p, c, a in zip(points, centre, semi_axes, strict=True)]
    radius = np.sqrt(sum(q**2 for q in scaled)) + 1e-6
    gradient = np.sqrt(sum((q / a) ** 2 for q, a in zip(scaled, semi_axes, strict=True))) + 1e-8
    result: Array = radius * (1 - radius) / gradient
    return result


def _ramp(distance: NDArray[np.floating[Any]], soft_mm: float) -> Array:
    """Return the share of a voxel that lies inside a border, from the distance into it."""
    result: Array = np.clip(0.5 + distance / (2 * soft_mm), 0, 1).astype(np.float32)
    return result


def _push(points: Array, tumour: Tumour, radius_mm: float) -> Array:
    """Return where each point lay before the tumour pushed the tissue outwards (mass effect)."""
    offset = points - np.asarray(tumour.centre_mm, np.float32).reshape(3, 1, 1, 1)
    distance_2 = (offset**2).sum(axis=0)
    result: Array = points - 0.25 * np.exp(-distance_2 / np.float32((1.6 * radius_mm) ** 2)) * offset
    return result


def _hull(points: Array, bump: Array) -> tuple[Array, Array, Array]:
    """Return the distances in mm into the cerebrum, the cerebellum and the brain stem."""
    mirrored = np.stack([np.abs(points[0]), points[1], points[2]])
    base = points[2] + 28 - 0.15 * points[1]
    upper = np.minimum(_inside_ellipsoid(points, (0, 0, 7), (67, 86, 61)), base)
    temporal = _inside_ellipsoid(mirrored, (41, 4, -21), (22, 42, 24))
    cerebrum = np.maximum(upper, temporal) + 1.8 * bump
    cerebellum = _inside_ellipsoid(mirrored, (17, -44, -40), (33, 30, 24)) + bump
    stem = _inside_ellipsoid(points, (0, -12, -46), (13, 14, 26))
    return cerebrum, cerebellum, stem


def _sulci(anatomy: Anatomy, grid: Grid, points: Array, depth: Array, rng: Generator) -> Array:
    """Return the distance in mm to the next sulcus or to the fissure between the hemispheres.

    A sulcus is a sheet where a smooth random field is zero, down to a depth that varies.
    """
    cell = max(9.0, 3 * grid.voxel_mm)
    sheet = np.abs(smooth_field(grid, cell, rng)) * (0.6 * cell)
    deep = anatomy.sulcus_depth_mm * (1 + 0.25 * smooth_field(grid, 30, rng))
    sulcus = np.hypot(sheet, np.maximum(0, depth - deep))
    middle = points[0] + 1.2 * smooth_field(grid, 25, rng)
    result: Array = np.minimum(sulcus, np.hypot(middle, np.maximum(0, depth - 30)))
    return result


def _folia(grid: Grid, points: Array, depth: Array, rng: Generator) -> Array:
    """Return the distance in mm to the next of the cerebellum's narrow sulci, which fan out from its stalk."""
    backwards, upwards = -points[1] - 14, points[2] + 38
    spacing_rad = max(0.22, 0.12 * grid.voxel_mm)
    fan = (np.arctan2(upwards, backwards) + 0.05 * smooth_field(grid, 15, rng)) / spacing_rad
    sheet = np.abs(fan - np.round(fan)) * spacing_rad * np.hypot(upwards, backwards)
    result: Array = np.hypot(sheet, np.maximum(0, depth - 9))
    return result


def _ventricles(points: Array, size: float, bump: Array) -> Array:
    """Return the distance in mm into the lateral ventricles and the third, negative outside."""
    x, y, z = points
    # The bodies arch over the thalamus and their horns flare outwards.
    bent = np.stack([np.abs(x) - 7 - 0.007 * y**2, y + 2, z - 17 + 0.007 * y**2])
    lateral = _inside_ellipsoid(bent, (0, 0, 0), (5.5 * size, 33 * size, 8 * size))
    third = _inside_ellipsoid(points, (0, -6, 1), (2.2 * size, 12, 9))
    result: Array = np.maximum(lateral, third) + 0.8 * bump
    return result


def _nuclei(points: Array) -> Array:
    """Return the distance in mm into the deep grey matter: thalamus, lentiform nucleus, caudate."""
    mirrored = np.stack([np.abs(points[0]), points[1], points[2]])
    thalamus = _inside_ellipsoid(mirrored, (11, -12, 5), (8, 13, 8))
    lentiform = _inside_ellipsoid(mirrored, (25, 4, 3), (6, 16, 9))
    caudate = _inside_ellipsoid(mirrored, (14, 16, 10), (4, 9, 8))
    return np.maximum(np.maximum(thalamus, lentiform), caudate)


def render_brain(anatomy: Anatomy, tumour: Tumour, grid: Grid, rng: Generator) -> Brain:
    """Draw the healthy brain, displaced by the tumour's mass."""
    hull_rng, fold_rng, ventricle_rng = rng.spawn(3)
    place = grid.coordinates(anatomy.tilt_rad)
    points = place / np.float32(anatomy.size)
    cerebrum, cerebellum, stem = _hull(points, smooth_field(grid, 30, hull_rng))
    depth = np.maximum(np.maximum(cerebrum, cerebellum), stem)
    points = _push(points, tumour, _radius_mm(tumour.volume))
    folds = np.where(
        cerebrum >= cerebellum,
        _sulci(anatomy, grid, points, depth, fold_rng),
        _folia(grid, points, depth, fold_rng),
    )
    # The brain stem has neither sulci nor a cortex.
    to_csf = np.where(stem > 0, 20, np.minimum(depth + 0.5, folds - anatomy.sulcus_width_mm / 2))
    ventricle = _ventricles(points, anatomy.ventricles, smooth_field(grid, 12, ventricle_rng))
    csf = np.maximum(_ramp(-to_csf, grid.soft_mm), _ramp(ventricle, grid.soft_mm))
    grey = np.maximum(_ramp(anatomy.cortex_mm - to_csf, grid.soft_mm), 0.8 * _ramp(_nuclei(points), grid.soft_mm))
    grey *= 1 - csf
    return Brain(grid, place, depth > 0, csf, grey, 1 - csf - grey, depth, ventricle)


# ---- Drawing the tumour ----


def _radius_mm(share: float) -> float:
    """Return the radius of a ball that is this share of a brain; a sampled brain has about 1.5 litres."""
    return float((share * 1.5e6 * 3 / (4 * np.pi)) ** (1 / 3))


def _lowest(level: NDArray[np.floating[Any]], within: Mask, count: int) -> Mask:
    """Return the `count` voxels of `within` where `level` is lowest."""
    values = level[within]
    count = min(max(count, 1), values.size)
    result: Mask = within & (level <= np.partition(values, count - 1)[count - 1])
    return result


def _touching(mask: Mask, seed: Mask) -> Mask:
    """Return the connected parts of `mask` that hold a voxel of `seed`."""
    parts, _ = ndimage.label(mask)
    return np.isin(parts, np.unique(parts[seed & mask])) & mask


def render_label(tumour: Tumour, brain: Brain, rng: Generator) -> Labels:
    """Draw the tumour's parts, each inside the next, with the volumes that were sampled.

    Each part is the share of voxels with the lowest level: the distance from the centre, displaced
    by noise. For the edema, grey matter and CSF count as farther away: it spreads in white matter.

    Args:
        tumour: What is drawn.
        brain: Where it grows.
        rng: Source of the irregular borders.

    Returns:
        (x, y, z) of the grid's box, values 0 to 3.
    """
    radius = _radius_mm(tumour.volume)
    offset = [(p - c) / (s * radius) for p, c, s in zip(brain.points, tumour.centre_mm, tumour.stretch, strict=True)]
    distance: Array = np.sqrt(sum(q**2 for q in offset))
    coarse, fine, inner = (smooth_field(brain.grid, radius * share, rng) for share in (0.8, 0.35, 0.4))
    level = distance + tumour.roughness * (0.7 * coarse + 0.4 * fine)
    whole_count = int(tumour.volume * brain.mask.sum())
    core_count = int(tumour.core * whole_count)
    core = _lowest(level + 0.2 * brain.csf, brain.mask, core_count)
    core = _touching(core, _lowest(level, core, 1))
    spread = level + tumour.roughness * inner + 0.2 * brain.grey + 0.6 * brain.csf
    whole = _touching(_lowest(np.where(core, -np.inf, spread), brain.mask, whole_count), core)
    label = np.where(core, CORE, np.where(whole, EDEMA, 0)).astype(np.uint8)
    if tumour.necrosis < 1:
        # The rim is thicker on one side, and broken where the noise lets the inside reach the border.
        necrosis = _lowest(
            level + 0.2 * offset[0] + 0.6 * tumour.roughness * inner, core, int(tumour.necrosis * core.sum())
        )
        label[core & ~necrosis] = ENHANCING
    return label


# ---- Drawing the scan ----


@dataclass(frozen=True)
class Rendering:
    """A case and what is known of it; axes (x, y, z)."""

    image: Array
    """(x, y, z, modality) in arbitrary units; 0 outside the brain and at least 1 inside."""
    label: Labels
    """0 background, 1 edema, 2 non-enhancing core, 3 enhancing."""
    tissue: Labels
    """The healthy tissue with the largest share: 0 outside, 1 CSF, 2 grey matter, 3 white matter."""


def _blurred(mask: Mask, grid: Grid, sigma_mm: float) -> Array:
    result: Array = ndimage.gaussian_filter(mask.astype(np.float32), max(sigma_mm / grid.voxel_mm, 0.4), truncate=3)
    return result


def _shares(brain: Brain, label: Labels, rng: Generator) -> dict[str, Array]:
    """Return each tissue's share of every voxel of the brain, as (voxel,); they add up to 1."""
    grid, mask = brain.grid, brain.mask
    # Edema is not uniform: fingers of it are fainter, and its border is not sharp.
    infiltration = np.clip(0.85 + 0.22 * smooth_field(grid, 14, rng), 0.35, 1.1)[mask]
    parts = {
        "edema": _blurred(label == EDEMA, grid, 1.2)[mask] * infiltration,
        "core": _blurred(label == CORE, grid, 0.7)[mask],
        "enhancing": _blurred(label == ENHANCING, grid, 0.7)[mask],
    }
    healthy = np.maximum(0, 1 - sum(parts.values()))
    # A vessel runs along the line in which two sheets cross.
    lines = np.hypot(smooth_field(grid, 22, rng), smooth_field(grid, 22, rng))[mask]
    vessel = np.clip(1.5 - lines * (22 * 0.45) / max(1.2, 0.5 * grid.voxel_mm), 0, 1) * healthy
    vessel *= brain.depth_mm[mask] < 30
    rest = healthy - vessel
    healthy_parts = {"csf": brain.csf, "grey": brain.grey, "white": brain.white}
    return parts | {"vessel": vessel} | {name: share[mask] * rest for name, share in healthy_parts.items()}


def _flair_gain(confounders: Confounders, brain: Brain, shares: dict[str, Array], rng: Generator) -> Array:
    """Return by what FLAIR is multiplied in each voxel of the brain, as (voxel,).

    Args:
        confounders: What is bright in FLAIR alone.
        brain: Where it lies.
        shares: Of the tissues; what is brighter is healthy white and grey matter.
        rng: Source of the patches.
    """
    grid, mask, white, grey = brain.grid, brain.mask, shares["white"], shares["grey"]
    lesion = np.zeros(mask.shape, np.float32)
    for centre, radius in confounders.lesions:
        semi = max(radius, 1.2 * grid.voxel_mm)
        np.maximum(lesion, _ramp(_inside_ellipsoid(brain.points, centre, (semi, 1.4 * semi, semi)), 1.5), out=lesion)
    ventricle = brain.ventricle_mm[mask]
    caps = _ramp(ventricle + confounders.caps_mm, 1.5 * grid.soft_mm) * (np.abs(brain.points[1][mask]) > 14)
    patches, shading = (np.clip(smooth_field(grid, cell, rng)[mask], 0, 1.5) for cell in (35, 45))
    bright: Array = confounders.lesion_gain * np.maximum(lesion[mask], caps) * white
    bright += confounders.cortex_gain * patches * grey + confounders.shading_gain * shading * (white + grey)
    return 1 + bright


def _acquire(signal: Array, brain: Brain, scan: Scan, modality: int, rng: Generator) -> Array:
    """Return the magnitude image, (voxel,): signal with bias field and Rician noise, in whole units."""
    bias = np.exp(scan.bias[modality] * smooth_field(brain.grid, 70, rng)[brain.mask])
    real, imaginary = scan.noise[modality] * rng.standard_normal((2, signal.size), dtype=np.float32)
    magnitude = np.hypot(signal * bias + real, imaginary) * scan.scale[modality]
    # A scanner stores whole numbers, and what is left of a skull-stripped brain is never 0.
    result: Array = np.maximum(1, np.rint(magnitude), dtype=np.float32)
    return result


def render_case(sample: CaseSample, shape: Shape) -> Rendering:
    """Draw a case; the same sample and shape give the same arrays.

    Args:
        sample: What the case is made of.
        shape: Voxels in (x, y, z), at least 16 in each axis.

    Raises:
        MisError: An axis is too short.
    """
    _check_shape(shape)
    brain_rng, label_rng, share_rng, flair_rng, *scan_rngs = np.random.default_rng(sample.texture_seed).spawn(8)
    brain = render_brain(sample.anatomy, sample.tumour, Grid(shape), brain_rng)
    label = render_label(sample.tumour, brain, label_rng)
    shares = _shares(brain, label, share_rng)
    gain = _flair_gain(sample.confounders, brain, shares, flair_rng)
    image = np.zeros((*brain.mask.shape, len(MODALITIES)), np.float32)
    for modality, rng in enumerate(scan_rngs):
        signal = _signal(shares, sample.scan, modality)
        signal = signal * gain if modality == FLAIR else signal
        image[brain.mask, modality] = _acquire(signal, brain, sample.scan, modality, rng)
    paste = brain.grid.paste
    return Rendering(paste(image), paste(label), paste(_largest_tissue(brain)))


def _signal(shares: dict[str, Array], scan: Scan, modality: int) -> Array:
    """Return what the tissues of each voxel send, (voxel,), relative to white matter in T1w."""
    means = dict(scan.signal)
    signal = np.zeros_like(shares["white"])
    for tissue, share in shares.items():
        signal += share * np.float32(means[tissue][modality])
    return signal


def _largest_tissue(brain: Brain) -> Labels:
    largest = np.stack([brain.csf, brain.grey, brain.white]).argmax(axis=0) + CSF
    return np.where(brain.mask, largest, 0).astype(np.uint8)


def make_case(shape: Shape, seed: int) -> tuple[Array, Labels]:
    """Make one case from a seed.

    Args:
        shape: Voxels in (x, y, z), at least 16 in each axis.
        seed: 0 or more.

    Returns:
        The image (x, y, z, modality), float32, in arbitrary units, 0 outside the brain, and the
        label (x, y, z), uint8, 0 to 3.

    Raises:
        MisError: An axis is too short.
    """
    case = render_case(sample_case(np.random.default_rng(seed)), shape)
    return case.image, case.label


def _check_shape(shape: Shape) -> None:
    if min(shape) < MIN_AXIS:
        raise MisError(
            f"a phantom must have at least {MIN_AXIS} voxels in each axis", got=shape, do="see phantom.shape"
        )


# ---- Writing the data set ----


def make_phantom(root: Path, params: PhantomParams, *, jobs: int, progress: bool = True) -> None:
    """Write a synthetic data set in the layout of MSD Task01_BrainTumour.

    The bytes written depend on `params` alone. `root` appears, or is replaced, once the data set is
    complete; what is left of a run that fails is removed.

    Args:
        root: The data set's folder, the one that will hold dataset.json.
        params: How many cases, their shape and the seed.
        jobs: Processes that make cases, 1 or more.
        progress: Show a progress bar.

    Raises:
        MisError: A parameter does not fit, or `root` holds something else than a phantom.
    """
    _check_shape(params.shape)
    if params.seed < 0:
        raise MisError("phantom.seed must be 0 or more", got=params.seed)
    if jobs < 1:
        raise MisError("jobs must be 1 or more", got=jobs)
    # Behind a link lies the folder that is meant, perhaps on another disk, where alone a rename is atomic.
    root = root.resolve()
    _check_replaceable(root)
    with new_folder(root) as folder:
        for name in ("imagesTr", "labelsTr", "imagesTs"):
            (folder / name).mkdir()
        _write_cases(folder, params, jobs, progress)
        text = json.dumps(_describe(params), indent=2) + "\n"
        (folder / "dataset.json").write_text(text, encoding="utf-8")


def _describe(params: PhantomParams) -> dict[str, Any]:
    """Return the content of dataset.json, with the keys of MSD Task01_BrainTumour in their order."""
    cases = [_file_name(index) for index in range(params.cases + params.unlabelled)]
    return {
        "name": "BRATS",
        "description": f"{PHANTOM_MARK}: drawn by a program, no patient data, no measure of any method's accuracy",
        "reference": "mis.data.phantom",
        "licence": "Apache-2.0",
        "release": f"seed {params.seed}",
        "tensorImageSize": "4D",
        "modality": {str(index): name for index, name in enumerate(MODALITIES)},
        "labels": {str(value): name for value, name in enumerate(LABELS)},
        "numTraining": params.cases,
        "numTest": params.unlabelled,
        "training": [{"image": f"./imagesTr/{case}", "label": f"./labelsTr/{case}"} for case in cases[: params.cases]],
        "test": [f"./imagesTs/{case}" for case in cases[params.cases :]],
    }


def _file_name(index: int) -> str:
    """Return the file name of a case; as in the real data set, the test cases go on counting."""
    return f"BRATS_{index + 1:03d}.nii.gz"


def case_seed(seed: int, index: int) -> int:
    """Return the seed of one case of a data set, so that each can be made alone and in any order."""
    return int(np.random.SeedSequence(seed, spawn_key=(index,)).generate_state(1, np.uint64)[0])


def _write_cases(folder: Path, params: PhantomParams, jobs: int, progress: bool) -> None:
    count = params.cases + params.unlabelled
    with tqdm(total=count, desc="phantom", unit="case", disable=not progress) as bar:
        if jobs == 1:
            for index in range(count):
                _write_case(folder, params, index)
                bar.update()
            return
        # A forked process may inherit a lock that another thread, e.g. TensorFlow's, holds for ever.
        with ProcessPoolExecutor(min(jobs, count), mp_context=get_context("spawn")) as pool:
            tasks = [pool.submit(_write_case, folder, params, index) for index in range(count)]
            try:
                for task in as_completed(tasks):
                    task.result()
                    bar.update()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _write_case(folder: Path, params: PhantomParams, index: int) -> None:
    image, label = make_case(params.shape, case_seed(params.seed, index))
    name = _file_name(index)
    if index >= params.cases:
        return _save(image, folder / "imagesTs" / name)
    _save(image, folder / "imagesTr" / name)
    return _save(label, folder / "labelsTr" / name)


def _save(volume: Array | Labels, path: Path) -> None:
    """Write a volume with 1 mm voxels, RAS; nibabel puts neither a time nor a name into the gzip header."""
    affine = np.eye(4)
    affine[:3, 3] = [-(n - 1) / 2 for n in volume.shape[:3]]
    image = nib.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def _check_replaceable(root: Path) -> None:
    """Refuse to replace what may be somebody's data: only a phantom or an empty folder gives way."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return
    index = root / "dataset.json"
    if not index.is_file() or PHANTOM_MARK not in index.read_text(encoding="utf-8", errors="replace"):
        raise MisError("the phantom replaces only a phantom", got=root, do="name another folder, or remove this one")
