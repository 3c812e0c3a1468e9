import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from mis.data import phantom
from mis.data.phantom import (
    CSF,
    ENHANCING,
    GREY,
    MODALITIES,
    WHITE,
    Grid,
    case_seed,
    make_case,
    make_phantom,
    render_case,
    sample_case,
    smooth_field,
)
from mis.errors import MisError
from mis.evaluate.baseline import choose_threshold, score_threshold
from mis.params import PhantomParams, load_params

PARAMS = PhantomParams(cases=3, unlabelled=2, shape=(24, 20, 18), seed=5)
DEFAULT = load_params(Path(__file__).parents[2] / "params.yaml").phantom
FLAIR, T1, T1GD, T2 = range(4)


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom") / "Task01"
    make_phantom(root, PARAMS, jobs=1, progress=False)
    return root


@pytest.fixture(scope="module")
def renderings():
    """The labelled cases of params.yaml."""
    seeds = [case_seed(DEFAULT.seed, index) for index in range(DEFAULT.cases)]
    return [render_case(sample_case(np.random.default_rng(seed)), DEFAULT.shape) for seed in seeds]


# ---- The files ----


def test_the_layout_is_that_of_msd(root):
    assert sorted(contents(root)) == [
        "dataset.json",
        "imagesTr/BRATS_001.nii.gz",
        "imagesTr/BRATS_002.nii.gz",
        "imagesTr/BRATS_003.nii.gz",
        "imagesTs/BRATS_004.nii.gz",
        "imagesTs/BRATS_005.nii.gz",
        "labelsTr/BRATS_001.nii.gz",
        "labelsTr/BRATS_002.nii.gz",
        "labelsTr/BRATS_003.nii.gz",
    ]


def test_dataset_json_is_that_of_msd(root):
    index = json.loads((root / "dataset.json").read_text())
    description = index.pop("description")
    assert "phantom" in description
    assert "no patient data" in description
    assert {key: index.pop(key) for key in ("reference", "licence", "release")}
    assert index == {
        "name": "BRATS",
        "tensorImageSize": "4D",
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
        "numTraining": 3,
        "numTest": 2,
        "training": [
            {"image": f"./imagesTr/BRATS_00{n}.nii.gz", "label": f"./labelsTr/BRATS_00{n}.nii.gz"} for n in (1, 2, 3)
        ],
        "test": ["./imagesTs/BRATS_004.nii.gz", "./imagesTs/BRATS_005.nii.gz"],
    }


def test_volumes_have_the_shape_type_and_geometry_of_msd(root):
    for path in sorted(root.glob("images*/*.nii.gz")):
        image = nib.load(path)
        assert image.shape == (*PARAMS.shape, 4)
        assert image.get_data_dtype() == np.float32
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
        assert image.header.get_zooms()[:3] == (1, 1, 1)
        assert image.header.get_xyzt_units()[0] == "mm"
    for path in sorted(root.glob("labelsTr/*.nii.gz")):
        label, image = nib.load(path), nib.load(root / "imagesTr" / path.name)
        assert label.shape == PARAMS.shape
        assert label.get_data_dtype() == np.uint8
        assert np.array_equal(label.affine, image.affine)


def test_files_hold_what_make_case_returns(root):
    image, label = make_case(PARAMS.shape, case_seed(PARAMS.seed, 1))
    assert np.array_equal(nib.load(root / "imagesTr/BRATS_002.nii.gz").get_fdata(dtype=np.float32), image)
    assert np.array_equal(np.asarray(nib.load(root / "labelsTr/BRATS_002.nii.gz").dataobj), label)


def test_the_bytes_do_not_depend_on_the_number_of_processes(root, tmp_path):
    make_phantom(tmp_path / "again", PARAMS, jobs=2, progress=False)
    assert contents(tmp_path / "again") == contents(root)


def test_another_seed_gives_other_cases(root, tmp_path):
    make_phantom(tmp_path / "other", PARAMS.model_copy(update={"seed": 6}), jobs=1, progress=False)
    same = contents(root).items() & contents(tmp_path / "other").items()
    assert not same


def test_a_phantom_is_replaced_and_nothing_else_is_left(tmp_path):
    make_phantom(tmp_path / "root", PARAMS, jobs=1, progress=False)
    make_phantom(tmp_path / "root", PARAMS.model_copy(update={"cases": 1}), jobs=1, progress=False)
    assert len(list((tmp_path / "root/imagesTr").iterdir())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_a_link_to_the_folder_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "disk", target_is_directory=True)
    make_phantom(tmp_path / "root", PARAMS, jobs=1, progress=False)
    assert (tmp_path / "root").is_symlink()
    assert (tmp_path / "disk/dataset.json").is_file()


def fail_at_the_third(monkeypatch):
    save, calls = phantom._save, []

    def failing(volume, path):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        save(volume, path)

    monkeypatch.setattr(phantom, "_save", failing)


def test_a_make_that_fails_leaves_nothing(tmp_path, monkeypatch):
    fail_at_the_third(monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        make_phantom(tmp_path / "root", PARAMS, jobs=1, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_make_that_fails_leaves_the_old_phantom(tmp_path, monkeypatch):
    make_phantom(tmp_path / "root", PARAMS, jobs=1, progress=False)
    before = contents(tmp_path / "root")
    fail_at_the_third(monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        make_phantom(tmp_path / "root", PARAMS.model_copy(update={"seed": 6}), jobs=1, progress=False)
    assert contents(tmp_path) == {f"root/{name}": data for name, data in before.items()}


def test_a_rename_that_fails_brings_the_old_phantom_back(tmp_path, monkeypatch):
    make_phantom(tmp_path / "root", PARAMS, jobs=1, progress=False)
    before = contents(tmp_path / "root")
    rename = Path.rename

    def failing(self, target):
        if self.name == ".root.unfinished":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="Input/output error"):
        make_phantom(tmp_path / "root", PARAMS.model_copy(update={"seed": 6}), jobs=1, progress=False)
    assert contents(tmp_path) == {f"root/{name}": data for name, data in before.items()}


def test_a_failure_in_another_process_leaves_nothing(tmp_path, monkeypatch):
    # A shape that _check_shape would refuse here fails in the processes instead.
    monkeypatch.setattr(phantom, "_check_shape", lambda _shape: None)
    params = PARAMS.model_copy(update={"shape": (24, 20, 8)})
    with pytest.raises(MisError, match="at least 16 voxels"):
        make_phantom(tmp_path / "root", params, jobs=2, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["notes.txt", "dataset.json"])
def test_what_is_no_phantom_is_not_replaced(tmp_path, name):
    (tmp_path / name).write_text('{"name": "BRATS", "description": "Gliomas segmentation"}')
    before = contents(tmp_path)
    with pytest.raises(MisError, match="replaces only a phantom"):
        make_phantom(tmp_path, PARAMS, jobs=1, progress=False)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "jobs", "message"),
    [
        ({"shape": (48, 15, 40)}, 1, r"at least 16 voxels in each axis, got \(48, 15, 40\)"),
        ({"seed": -1}, 1, "seed must be 0 or more, got -1"),
        ({}, 0, "jobs must be 1 or more, got 0"),
    ],
)
def test_params_that_do_not_fit_are_refused(tmp_path, change, jobs, message):
    with pytest.raises(MisError, match=message):
        make_phantom(tmp_path / "root", PARAMS.model_copy(update=change), jobs=jobs, progress=False)
    assert list(tmp_path.iterdir()) == []


# ---- The cases ----


@pytest.mark.parametrize("shape", [(16, 16, 16), (16, 40, 24), (33, 37, 31), (48, 48, 40)])
@pytest.mark.parametrize("seed", range(6))
def test_a_case_is_well_formed_at_any_shape(shape, seed):
    image, label = make_case(shape, seed)
    brain = image[..., 0] > 0
    assert image.shape == (*shape, len(MODALITIES))
    assert image.dtype == np.float32
    assert label.shape == shape
    assert label.dtype == np.uint8
    assert np.isfinite(image).all()
    assert np.array_equal(image > 0, np.broadcast_to(brain[..., None], image.shape))
    assert not image[~brain].any()
    assert set(np.unique(label)) <= {0, 1, 2, 3}
    assert {0, 1, 2} <= set(np.unique(label))
    assert not label[~brain].any()


def test_the_same_seed_gives_the_same_case_and_another_seed_another():
    first, again, other = (make_case((20, 22, 18), seed) for seed in (1, 1, 2))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[1], other[1])


def test_every_case_of_a_data_set_has_its_own_seed():
    seeds = {case_seed(seed, index) for seed in range(20) for index in range(50)}
    assert len(seeds) == 1000


def test_the_brain_has_the_size_of_one_in_brats():
    extents = []
    for seed in range(2):
        brain = make_case((120, 120, 78), seed)[0][..., 0] > 0  # half as many voxels in each axis: 2 mm
        extents.append([2 * (1 + np.ptp(axis)) for axis in np.nonzero(brain)])
    assert np.mean(extents, axis=0) == pytest.approx([140, 175, 140], rel=0.06)


def test_tumours_have_a_size_that_can_be_learnt(renderings):
    shares = [np.count_nonzero(r.label) / np.count_nonzero(r.tissue) for r in renderings]
    assert min(shares) > 0.03
    assert max(shares) < 0.21
    assert min(np.count_nonzero(r.label >= 2) for r in renderings) > 200


def test_some_cases_enhance_and_some_do_not(renderings):
    enhancing = sum((r.label == ENHANCING).any() for r in renderings)
    assert len(renderings) / 2 < enhancing < len(renderings)


def test_the_core_lies_within_the_tumour_and_what_enhances_lies_at_the_core(renderings):
    surrounded = []
    for r in renderings:
        whole, core, enhancing = r.label > 0, r.label >= 2, r.label == ENHANCING
        assert ndimage.label(core)[1] == 1
        assert ndimage.label(whole)[1] == 1
        shell = ndimage.binary_dilation(core) & ~core & (r.tissue > 0)
        surrounded.append(whole[shell].mean())
        if enhancing.any():
            assert (ndimage.binary_dilation(enhancing) & (r.label == 2)).any()
    # The core lies bare at sulci and ventricles alone; elsewhere edema surrounds it.
    assert min(surrounded) > 0.4
    assert np.mean(surrounded) > 0.75


def mean(rendering, modality, mask):
    return rendering.image[..., modality][mask].mean()


def test_tissues_have_the_contrasts_of_mri(renderings):
    grey_to_white = []
    for r in renderings:
        healthy = ~ndimage.binary_dilation(r.label > 0, iterations=2)
        csf, grey, white = (healthy & (r.tissue == tissue) for tissue in (CSF, GREY, WHITE))
        assert mean(r, T1, white) > mean(r, T1, grey) > mean(r, T1, csf)
        assert mean(r, T1GD, white) > mean(r, T1GD, grey) > mean(r, T1GD, csf)
        assert mean(r, T2, csf) > mean(r, T2, grey) > mean(r, T2, white)
        assert mean(r, FLAIR, csf) < 0.8 * min(mean(r, FLAIR, grey), mean(r, FLAIR, white))
        grey_to_white.append(mean(r, FLAIR, grey) / mean(r, FLAIR, white))
    # Slightly: the bias field turns it in some cases.
    assert 1 < np.median(grey_to_white) < 1.2


def test_tumours_have_the_contrasts_of_mri(renderings):
    for r in renderings:
        white = (r.tissue == WHITE) & ~ndimage.binary_dilation(r.label > 0, iterations=2)
        edema, core, rim = (r.label == value for value in (1, 2, 3))
        assert mean(r, FLAIR, edema) > 1.05 * mean(r, FLAIR, white)
        assert mean(r, T2, edema) > 1.1 * mean(r, T2, white)
        assert max(mean(r, T1, core), mean(r, T1, edema)) < mean(r, T1, white)
        assert mean(r, T2, core) > mean(r, T2, white)
        if rim.any():
            assert mean(r, T1GD, rim) > 1.2 * mean(r, T1GD, white)
            assert mean(r, T1, rim) < mean(r, T1, white)


def test_the_scale_of_intensities_is_the_cases_own(renderings):
    medians = np.array([np.median(r.image[r.tissue > 0], axis=0) for r in renderings])
    assert (medians.max(axis=0) / medians.min(axis=0) > 3).all()


def test_no_flair_threshold_solves_it(renderings):
    cases = [(r.image[..., FLAIR], r.label) for r in renderings]
    chosen = choose_threshold(cases[:18])
    assert 0.3 < chosen.dice < 0.6
    assert 0.3 < np.mean(score_threshold(chosen.value, cases[18:])) < 0.6


def test_a_smooth_field_has_mean_0_and_standard_deviation_1_and_is_smooth():
    field = smooth_field(Grid((96, 96, 80)), 8, np.random.default_rng(0))
    assert field.dtype == np.float32
    assert field.mean() == pytest.approx(0, abs=0.05)
    assert field.std() == pytest.approx(1, abs=0.05)
    assert max(np.abs(np.diff(field, axis=axis)).max() for axis in range(3)) < 1.5


def test_an_anatomy_has_one_shape_at_every_resolution():
    sample = sample_case(np.random.default_rng(3))
    fine, coarse = (render_case(sample, shape).tissue > 0 for shape in ((96, 96, 80), (48, 48, 40)))
    pooled = fine.reshape(48, 2, 48, 2, 40, 2).mean(axis=(1, 3, 5)) > 0.5
    assert 2 * (pooled & coarse).sum() / (pooled.sum() + coarse.sum()) > 0.97
