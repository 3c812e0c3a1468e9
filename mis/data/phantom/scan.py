"""Drawing the scan: what the tissues send and how a scanner shows it, up to the whole case."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from mis.data.phantom.anatomy import CSF, Brain, render_brain
from mis.data.phantom.grid import Array, Grid, Labels, Mask, Shape, check_shape, inside_ellipsoid, ramp, smooth_field
from mis.data.phantom.sample import MODALITIES, CaseSample, Confounders, Scan, sample_case
from mis.data.phantom.tumour import CORE, EDEMA, ENHANCING, render_label

FLAIR = 0


@dataclass(frozen=True)
class Rendering:
    """A case as it is drawn.

    Attributes:
        image: float32 (x, y, z, modality) in arbitrary units; 0 outside the brain and at least 1 inside.
        label: uint8 (x, y, z): 0 background, 1 edema, 2 non-enhancing core, 3 enhancing.
        tissue: uint8 (x, y, z): the healthy tissue with the largest share, 0 outside, 1 CSF, 2 grey matter,
            3 white matter.
    """

    image: Array
    label: Labels
    tissue: Labels


def render_case(sample: CaseSample, shape: Shape) -> Rendering:
    """Draw a case; the same sample and shape give the same arrays.

    Args:
        sample: What the case is made of.
        shape: Voxels in (x, y, z), at least 16 in each axis.

    Raises:
        MisError: An axis is too short.
    """
    check_shape(shape)
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
    """Return the factor of FLAIR in each voxel of the brain, (voxel,), which makes some healthy tissue bright.

    Args:
        confounders: What is bright in FLAIR alone.
        brain: The healthy brain.
        shares: The share of each tissue in every voxel, (voxel,); white and grey matter become brighter.
        rng: The source of the bright patches.
    """
    grid, mask, white, grey = brain.grid, brain.mask, shares["white"], shares["grey"]
    lesion = np.zeros(mask.shape, np.float32)
    for centre, radius in confounders.lesions:
        semi = max(radius, 1.2 * grid.voxel_mm)
        np.maximum(lesion, ramp(inside_ellipsoid(brain.points, centre, (semi, 1.4 * semi, semi)), 1.5), out=lesion)
    ventricle = brain.ventricle_mm[mask]
    caps = ramp(ventricle + confounders.caps_mm, 1.5 * grid.soft_mm) * (np.abs(brain.points[1][mask]) > 14)
    patches, shading = (np.clip(smooth_field(grid, cell, rng)[mask], 0, 1.5) for cell in (35, 45))
    bright: Array = confounders.lesion_gain * np.maximum(lesion[mask], caps) * white
    bright += confounders.cortex_gain * patches * grey + confounders.shading_gain * shading * (white + grey)
    return 1 + bright


def _signal(shares: dict[str, Array], scan: Scan, modality: int) -> Array:
    """Return what the tissues of each voxel send, (voxel,), relative to white matter in T1w."""
    means = dict(scan.signal)
    signal = np.zeros_like(shares["white"])
    for tissue, share in shares.items():
        signal += share * np.float32(means[tissue][modality])
    return signal


def _acquire(signal: Array, brain: Brain, scan: Scan, modality: int, rng: Generator) -> Array:
    """Return the magnitude image, (voxel,): signal with bias field and Rician noise, in whole units."""
    bias = np.exp(scan.bias[modality] * smooth_field(brain.grid, 70, rng)[brain.mask])
    real, imaginary = scan.noise[modality] * rng.standard_normal((2, signal.size), dtype=np.float32)
    magnitude = np.hypot(signal * bias + real, imaginary) * scan.scale[modality]
    # A scanner stores whole numbers, and what is left of a skull-stripped brain is never 0.
    result: Array = np.maximum(1, np.rint(magnitude), dtype=np.float32)
    return result


def _largest_tissue(brain: Brain) -> Labels:
    largest = np.stack([brain.csf, brain.grey, brain.white]).argmax(axis=0) + CSF
    return np.where(brain.mask, largest, 0).astype(np.uint8)
