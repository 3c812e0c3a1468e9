import json

import nibabel as nib
import numpy as np
import pytest

from mis.data.phantom.formats import FORMATS
from mis.data.phantom.scan import make_case
from mis.data.phantom.write import case_seed, make_phantom
from mis.params.data import LAYOUTS, PhantomParams

PARAMS = PhantomParams(layout="msd", cases=2, unlabelled=1, shape=(24, 20, 18), seed=5)
FILES = {
    "msd": """
        README.md
        dataset.json
        imagesTr/BRATS_001.nii.gz
        imagesTr/BRATS_002.nii.gz
        imagesTs/BRATS_003.nii.gz
        labelsTr/BRATS_001.nii.gz
        labelsTr/BRATS_002.nii.gz
    """,
    "brats2021": """
        BraTS2021_00001/BraTS2021_00001_flair.nii.gz
        BraTS2021_00001/BraTS2021_00001_seg.nii.gz
        BraTS2021_00001/BraTS2021_00001_t1.nii.gz
        BraTS2021_00001/BraTS2021_00001_t1ce.nii.gz
        BraTS2021_00001/BraTS2021_00001_t2.nii.gz
        BraTS2021_00002/BraTS2021_00002_flair.nii.gz
        BraTS2021_00002/BraTS2021_00002_seg.nii.gz
        BraTS2021_00002/BraTS2021_00002_t1.nii.gz
        BraTS2021_00002/BraTS2021_00002_t1ce.nii.gz
        BraTS2021_00002/BraTS2021_00002_t2.nii.gz
        README.md
        ValidationData/BraTS2021_00003/BraTS2021_00003_flair.nii.gz
        ValidationData/BraTS2021_00003/BraTS2021_00003_t1.nii.gz
        ValidationData/BraTS2021_00003/BraTS2021_00003_t1ce.nii.gz
        ValidationData/BraTS2021_00003/BraTS2021_00003_t2.nii.gz
    """,
    "brats2023": """
        BraTS-GLI-00001-000/BraTS-GLI-00001-000-seg.nii.gz
        BraTS-GLI-00001-000/BraTS-GLI-00001-000-t1c.nii.gz
        BraTS-GLI-00001-000/BraTS-GLI-00001-000-t1n.nii.gz
        BraTS-GLI-00001-000/BraTS-GLI-00001-000-t2f.nii.gz
        BraTS-GLI-00001-000/BraTS-GLI-00001-000-t2w.nii.gz
        BraTS-GLI-00002-000/BraTS-GLI-00002-000-seg.nii.gz
        BraTS-GLI-00002-000/BraTS-GLI-00002-000-t1c.nii.gz
        BraTS-GLI-00002-000/BraTS-GLI-00002-000-t1n.nii.gz
        BraTS-GLI-00002-000/BraTS-GLI-00002-000-t2f.nii.gz
        BraTS-GLI-00002-000/BraTS-GLI-00002-000-t2w.nii.gz
        README.md
        ValidationData/BraTS-GLI-00003-000/BraTS-GLI-00003-000-t1c.nii.gz
        ValidationData/BraTS-GLI-00003-000/BraTS-GLI-00003-000-t1n.nii.gz
        ValidationData/BraTS-GLI-00003-000/BraTS-GLI-00003-000-t2f.nii.gz
        ValidationData/BraTS-GLI-00003-000/BraTS-GLI-00003-000-t2w.nii.gz
    """,
    "nnunet": """
        README.md
        dataset.json
        imagesTr/BRATS_001_0000.nii.gz
        imagesTr/BRATS_001_0001.nii.gz
        imagesTr/BRATS_001_0002.nii.gz
        imagesTr/BRATS_001_0003.nii.gz
        imagesTr/BRATS_002_0000.nii.gz
        imagesTr/BRATS_002_0001.nii.gz
        imagesTr/BRATS_002_0002.nii.gz
        imagesTr/BRATS_002_0003.nii.gz
        imagesTs/BRATS_003_0000.nii.gz
        imagesTs/BRATS_003_0001.nii.gz
        imagesTs/BRATS_003_0002.nii.gz
        imagesTs/BRATS_003_0003.nii.gz
        labelsTr/BRATS_001.nii.gz
        labelsTr/BRATS_002.nii.gz
    """,
}
# FLAIR, T1w, T1gd and T2w, in this order, of a case with a label and of one without.
SECOND, THIRD = (
    {
        "msd": [f"images{part}/BRATS_{number:03d}.nii.gz"],
        "brats2021": [f"{folder}{old}/{old}_{suffix}.nii.gz" for suffix in ("flair", "t1", "t1ce", "t2")],
        "brats2023": [f"{folder}{new}/{new}-{suffix}.nii.gz" for suffix in ("t2f", "t1n", "t1c", "t2w")],
        "nnunet": [f"images{part}/BRATS_{number:03d}_000{channel}.nii.gz" for channel in (3, 0, 1, 2)],
    }
    for number, part, folder, old, new in (
        (2, "Tr", "", "BraTS2021_00002", "BraTS-GLI-00002-000"),
        (3, "Ts", "ValidationData/", "BraTS2021_00003", "BraTS-GLI-00003-000"),
    )
)
LABEL = {
    "msd": "labelsTr/BRATS_002.nii.gz",
    "brats2021": "BraTS2021_00002/BraTS2021_00002_seg.nii.gz",
    "brats2023": "BraTS-GLI-00002-000/BraTS-GLI-00002-000-seg.nii.gz",
    "nnunet": "labelsTr/BRATS_002.nii.gz",
}
# What edema, non-enhancing core and enhancing tumour are written as.
VALUES = {"msd": (1, 2, 3), "brats2021": (2, 1, 4), "brats2023": (2, 1, 3), "nnunet": (1, 2, 3)}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """The phantom in every layout."""
    folder = tmp_path_factory.mktemp("phantom")
    for layout in LAYOUTS:
        make_phantom(folder / layout, PARAMS.model_copy(update={"layout": layout}), jobs=1, progress=False)
    return {layout: folder / layout for layout in LAYOUTS}


def volume(path):
    return np.asarray(nib.load(path).dataobj)


def test_every_layout_that_params_know_can_be_written():
    assert set(FORMATS) == set(LAYOUTS) == {"msd", "brats2021", "brats2023", "nnunet"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_files_are_those_of_the_layout(roots, layout):
    root = roots[layout]
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    assert names == FILES[layout].split()


@pytest.mark.parametrize("layout", ["msd", "nnunet"])
def test_the_folder_of_what_has_no_label_is_there_if_it_is_empty(tmp_path, layout):
    params = PARAMS.model_copy(update={"layout": layout, "cases": 1, "unlabelled": 0})
    make_phantom(tmp_path / "root", params, jobs=1, progress=False)
    assert list((tmp_path / "root/imagesTs").iterdir()) == []


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("names", "index"), [(SECOND, 1), (THIRD, 2)])
def test_a_patient_is_the_same_in_every_layout(roots, layout, names, index):
    """Voxel by voxel what make_case returns."""
    image, _ = make_case(PARAMS.shape, case_seed(PARAMS.seed, index))
    files = [volume(roots[layout] / name) for name in names[layout]]
    assert np.array_equal(files[0] if layout == "msd" else np.stack(files, axis=-1), image)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_label_is_the_same_in_every_layout_but_for_its_values(roots, layout):
    _, label = make_case(PARAMS.shape, case_seed(PARAMS.seed, 1))
    written = volume(roots[layout] / LABEL[layout])
    assert set(np.unique(written)) == {0, *VALUES[layout]}
    for value, wanted in zip((1, 2, 3), VALUES[layout], strict=True):
        assert np.array_equal(written == wanted, label == value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_volume_has_the_shape_type_and_geometry_of_the_layout(roots, layout):
    msd = layout == "msd"
    images = [nib.load(roots[layout] / name) for name in (*SECOND[layout], *THIRD[layout])]
    label = nib.load(roots[layout] / LABEL[layout])
    assert {image.get_data_dtype() for image in images} == {np.dtype(np.float32 if msd else np.int16)}
    assert {image.shape for image in images} == {(*PARAMS.shape, 4) if msd else PARAMS.shape}
    assert label.get_data_dtype() == (np.int16 if layout.startswith("brats") else np.uint8)
    assert label.shape == PARAMS.shape
    for image in (*images, label):
        assert np.array_equal(image.affine, label.affine)
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
        assert image.header.get_zooms()[:3] == (1, 1, 1)
        assert image.header.get_xyzt_units()[0] == "mm"
        assert image.dataobj.slope == 1
        assert image.dataobj.inter == 0


def test_int16_holds_every_voxel():
    """Whole numbers, none in the upper half of what int16 holds: no voxel is clipped or turns negative."""
    for seed in range(300):
        image, _ = make_case((16, 16, 16), seed)
        assert np.array_equal(image, np.rint(image))
        assert 0 <= image.min() < image.max() < 2**14


def index_of(root):
    """Return what dataset.json holds, without what is free to say."""
    index = json.loads((root / "dataset.json").read_text())
    description = index.pop("description")
    assert description.startswith("Synthetic phantom")
    assert "no patient data" in description
    assert {key: index.pop(key) for key in ("reference", "licence", "release")}
    return index


def test_dataset_json_is_that_of_msd(roots):
    assert index_of(roots["msd"]) == {
        "name": "BRATS",
        "tensorImageSize": "4D",
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
        "numTraining": 2,
        "numTest": 1,
        "training": [
            {"image": f"./imagesTr/BRATS_00{n}.nii.gz", "label": f"./labelsTr/BRATS_00{n}.nii.gz"} for n in (1, 2)
        ],
        "test": ["./imagesTs/BRATS_003.nii.gz"],
    }


def test_dataset_json_is_that_of_nnunet(roots):
    assert index_of(roots["nnunet"]) == {
        "name": "BRATS",
        "channel_names": {"0": "T1", "1": "T1ce", "2": "T2", "3": "Flair"},
        "labels": {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]},
        "regions_class_order": [1, 2, 3],
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
