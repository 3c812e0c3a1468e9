"""What is drawn of a case: voxels, planes, colours, and that nobody takes a phantom for a patient."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image, ImageSequence

from mis.data.geometry import Geometry
from mis.data.layouts.recognise import read_data
from mis.data.phantom.write import make_phantom
from mis.data.pictures import animation
from mis.data.pictures.animation import draw_slices, panel_size
from mis.data.pictures.colours import REGION_COLOURS
from mis.data.pictures.planes import take_plane
from mis.data.pictures.show import read_view
from mis.data.pictures.view import AMBER, View, draw_planes, grey_levels
from mis.data.records.preprocess import find_brain
from mis.errors import MisError
from mis.params.data import PhantomParams
from tests.data.test_geometry import affine_of

REGIONS = {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)}


def view_of(modalities, label, affine=None):
    brain = find_brain(modalities, label, crop=True)
    affine = np.eye(4) if affine is None else affine
    geometry = replace(Geometry.of(modalities[0].shape, affine), start=brain.start, size=brain.mask.shape)
    return View.of(brain, geometry, REGIONS, case="case", source="data (msd)", is_phantom=False)


@pytest.fixture
def view(tiny, params):
    return read_view("BRATS_001", tiny, params.data)


def colours(image):
    """Return the colours of an image, (row, column, 3), as matplotlib writes them."""
    red, green, blue = np.moveaxis(image.astype(int), -1, 0)
    return {f"#{colour:06x}" for colour in np.unique(red << 16 | green << 8 | blue)}


def frames(path):
    """Return every frame of a picture, (row, column, 3)."""
    with Image.open(path) as image:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]


def rgb(path, frame=0):
    return frames(path)[frame]


def test_grey_levels_run_from_percentile_to_percentile():
    values = np.stack([np.arange(1001), np.full(1001, 7)], axis=1).astype(np.float32)
    levels = grey_levels(values)
    assert (levels[:6, 0] == 0).all()
    assert (levels[-6:, 0] == 255).all()
    assert levels[500, 0] in (127, 128)
    assert (np.diff(levels[:, 0].astype(int)) >= 0).all()
    assert not levels[:, 1].any(), "constant"


def test_voxels_and_volumes_are_those_of_the_file(tiny, params):
    for case in tiny.cases:
        view = read_view(case.id, tiny, params.data)
        label = np.asarray(nib.load(case.label).dataobj)
        expected = {name: np.count_nonzero(np.isin(label, values)) for name, values in REGIONS.items()}
        assert view.voxels == expected
        assert view.volumes_cm3() == pytest.approx({name: count / 1000 for name, count in expected.items()})


def test_volumes_have_the_spacing():
    label = np.zeros((6, 6, 6), np.uint8)
    label[2:4, 2:4, 2] = 1, 2
    view = view_of([np.ones((6, 6, 6))] * 4, label, affine_of("RAS", (1, 2, 5)))
    assert view.voxels == {"WT": 4, "TC": 2, "ET": 0}
    assert view.volumes_cm3() == pytest.approx({"WT": 0.04, "TC": 0.02, "ET": 0})
    assert view.grid() == "6 x 6 x 6 voxels of 1 x 2 x 5 mm"


def test_the_planes_go_through_most_of_the_tumour():
    label = np.zeros((8, 9, 10), np.uint8)
    label[2, 3, :5] = 1
    label[2:5, 3:6, 7] = 3
    view = view_of([np.ones((8, 9, 10))] * 4, label)
    place = [first + index for first, index in zip(view.first, view.centre, strict=True)]
    assert place == [2, 3, 7]


@pytest.mark.parametrize("label", [None, np.zeros((8, 10, 12), np.uint8)])
def test_without_a_tumour_the_planes_go_through_the_middle(label):
    view = view_of([np.ones((8, 10, 12))] * 4, label)
    assert [first + index for first, index in zip(view.first, view.centre, strict=True)] == [4, 5, 6]


def test_a_plane_shows_the_patients_right_on_the_right_and_anterior_above(tmp_path):
    """One bright octant, right, anterior, superior: it is right and above in each plane of the picture."""
    volume = np.ones((20, 20, 20), np.float32)
    volume[10:, 10:, 10:] = 100
    assert take_plane(volume, 2, 15)[15, 15] == take_plane(volume, 0, 15)[15, 15] == take_plane(volume, 1, 15)[15, 15]
    draw_planes(view_of([volume] * 4, None), tmp_path / "case.png")
    bright = (rgb(tmp_path / "case.png").sum(axis=-1) == 3 * 255)[200:-120, : 1760 // 4]  # a column of planes
    columns = np.flatnonzero(bright.sum(axis=0) > 100)
    assert columns.min() > 1760 // 8 - 5, "nothing of it on the left"
    rows = np.flatnonzero(bright.sum(axis=1) > 100)
    assert rows.min() < 100, "it is in the upper half of the first plane"
    assert len(bright) - rows.max() > 150, "and not in the lower half of the last"
    draw_slices(view_of([volume] * 4, None), tmp_path / "case.gif")
    last = rgb(tmp_path / "case.gif", 19)[2 * animation.LINE_HEIGHT : -animation.LINE_HEIGHT]
    panel = last[:, : last.shape[1] // 4, 0] > 250
    rows, columns = np.nonzero(panel[:, 20:-20])
    assert rows.max() <= panel.shape[0] / 2 + 10
    assert columns.min() + 20 >= panel.shape[1] / 2 - 10


def test_another_orientation_gives_the_same_picture(tiny, params, tmp_path):
    """The files in LPS: x and y the other way round, in the same place."""
    case = tiny.cases[0]
    turned = tuple(tmp_path / folder / path.name for folder, path in zip("il", case.files, strict=True))
    for path, new in zip(case.files, turned, strict=True):
        new.parent.mkdir()
        image = nib.load(path)
        lps = image.as_reoriented(nib.orientations.axcodes2ornt("LPS"))
        assert nib.aff2axcodes(lps.affine) == ("L", "P", "S")
        nib.save(lps, new)
    other = replace(tiny, cases=(replace(case, images=turned[:1], label=turned[1]),))
    for name, data in (("ras", tiny), ("lps", other)):
        view = read_view(case.id, data, params.data)
        draw_planes(view, tmp_path / f"{name}.png")
        draw_slices(view, tmp_path / f"{name}.gif")
    for kind in ("png", "gif"):
        assert (tmp_path / f"ras.{kind}").read_bytes() == (tmp_path / f"lps.{kind}").read_bytes()


def test_the_outlines_are_in_both_pictures(view, tmp_path):
    draw_planes(view, tmp_path / "a.png")
    draw_slices(view, tmp_path / "a.gif")
    assert set(view.voxels) == set(REGION_COLOURS)
    assert set(REGION_COLOURS.values()) <= colours(rgb(tmp_path / "a.png"))
    with Image.open(tmp_path / "a.gif") as image:
        assert image.info["duration"] == animation.FRAME_MS
        assert image.info["loop"] == 0
    slices = np.flatnonzero(view.grey.any(axis=(0, 1, 3)))  # of this phantom, all of the box
    for frame, index in zip(frames(tmp_path / "a.gif"), slices, strict=True):
        seen = colours(frame[: -animation.LINE_HEIGHT])
        drawn = {name for name, colour in REGION_COLOURS.items() if colour in seen}
        there = {
            name for name, any_ in zip(view.regions, view.masks[:, :, index].any(axis=(0, 1)), strict=True) if any_
        }
        assert drawn <= there, "an inner region may cover the border of an outer one, and nothing else is drawn"
        assert bool(drawn) == bool(there)


def test_a_case_without_a_label_has_no_outlines(view, tmp_path):
    draw_planes(replace(view, masks=None), tmp_path / "a.png")
    draw_slices(replace(view, masks=None), tmp_path / "a.gif")
    for path in (tmp_path / "a.png", tmp_path / "a.gif"):
        assert not set(REGION_COLOURS.values()) & colours(rgb(path))


def test_a_phantom_is_marked_in_both_pictures_and_nothing_else_is(view, tmp_path):
    for is_phantom in (True, False):
        draw_planes(replace(view, is_phantom=is_phantom), tmp_path / "a.png")
        draw_slices(replace(view, is_phantom=is_phantom), tmp_path / "a.gif")
        assert (AMBER in colours(rgb(tmp_path / "a.png"))) == is_phantom
        assert {AMBER in colours(frame) for frame in frames(tmp_path / "a.gif")} == {is_phantom}


def test_panels_have_the_proportions_of_the_brain():
    for spacing in ((1, 1, 1), (0.5, 2, 1)):
        view = view_of([np.ones((60, 80, 40))] * 4, None, affine_of("RAS", spacing))
        width, height = panel_size(view, 40)
        assert width / height == pytest.approx(view.size_mm[0] / view.size_mm[1], rel=0.02)
        assert width * height * 40 * 4 <= animation.MOST_PIXELS * 1.02
        assert max(width, height) <= animation.LONGEST_EDGE


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 200, 2), (2, 2, 100)])
def test_a_brain_of_any_shape_is_drawn(tmp_path, shape):
    view = view_of([np.ones(shape)] * 4, np.ones(shape, np.uint8), affine_of("RAS", (1, 1, 9)))
    draw_planes(view, tmp_path / "a.png")
    draw_slices(view, tmp_path / "a.gif")
    assert max(rgb(tmp_path / "a.png").shape) < 2000
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames <= animation.MOST_FRAMES


def test_a_case_without_a_brain_is_refused():
    with pytest.raises(MisError, match="voxels other than 0"):
        view_of([np.zeros((4, 4, 4))] * 4, None)


def test_a_name_may_have_any_characters(view, tmp_path):
    draw_planes(replace(view, case="a_$b$^{c"), tmp_path / "a.png")
    draw_slices(replace(view, case="a_$b$^{c"), tmp_path / "a.gif")


@pytest.mark.slow
def test_a_case_of_full_size_is_small_enough_to_send(params, tmp_path):
    full = PhantomParams(layout="msd", cases=1, unlabelled=0, shape=(240, 240, 155), seed=7)
    make_phantom(tmp_path / "full", full, jobs=1, progress=False)
    view = read_view("BRATS_001", read_data(tmp_path / "full"), params.data)
    draw_slices(view, tmp_path / "a.gif")
    draw_planes(view, tmp_path / "a.png")
    assert (tmp_path / "a.gif").stat().st_size < 5e6
    assert (tmp_path / "a.png").stat().st_size < 5e6
    with Image.open(tmp_path / "a.gif") as image:
        assert 60 < image.n_frames <= animation.MOST_FRAMES
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == 1760
