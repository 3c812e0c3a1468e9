"""Label maps from a real Keras model and real NIfTI files, as `python -m mis.predict` makes them."""

import json
from dataclasses import replace

import keras
import nibabel as nib
import numpy as np
import pytest

from mis.data.case import MODALITIES
from mis.data.layouts.recognise import read_data
from mis.data.records.index import target_regions
from mis.errors import MisError
from mis.model.card import ModelCard, add_card, read_card
from mis.params.load import load_params
from mis.params.predict import PLAIN
from mis.predict.__main__ import main
from mis.predict.cases import four_files, read_input
from mis.predict.model import load_segmenter
from mis.predict.session import FAILED, NOTES, predict_cases
from mis.predict.source import best_models
from mis.settings import load_settings
from mis.track.base import TUNE
from mis.track.memory import MemoryTracker
from mis.track.mlflow import MlflowTracker
from tests.conftest import ROOT
from tests.data.test_geometry import ORIENTATIONS, affine_of

SHAPE = (10, 12, 9)


@pytest.fixture(scope="module")
def card(params):
    return ModelCard(
        modalities=MODALITIES, regions=target_regions(params.data), data=params.data, grid=(8, 8, 8),
        patch_size=(8, 8, 8), multiple=8, records="r", data_hash=None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model_file(card, tmp_path_factory):
    """A model whose regions are where FLAIR is above 0, 0.5 and 1 standard deviations: each voxel by itself."""
    image = keras.Input((None, None, None, 4))
    layer = keras.layers.Conv3D(3, 1, activation="sigmoid", name="regions")
    model = keras.Model(image, layer(image))
    kernel = np.zeros((1, 1, 1, 4, 3), np.float32)
    kernel[..., 0, :] = 50
    layer.set_weights([kernel, -50 * np.array([0.0, 0.5, 1.0], np.float32)])
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model.save(path)
    add_card(path, card)
    return path


@pytest.fixture(scope="module")
def segmenter(model_file):
    return load_segmenter([model_file])


@pytest.fixture(scope="module")
def predict(params):
    return params.override({"predict.batch_size": 4}).predict


def write_four(folder, volumes, affine, header=None):
    """Write a 3-D file for each modality, and return their paths."""
    files = {}
    for modality, volume in zip(MODALITIES, volumes, strict=True):
        files[modality] = folder / f"{modality}.nii.gz"
        nib.save(nib.Nifti1Image(volume, affine, header), files[modality])
    return files


def volumes(seed=0):
    rng = np.random.default_rng(seed)
    brain = np.zeros(SHAPE, bool)
    brain[2:9, 1:11, 2:8] = True
    return [np.where(brain, rng.normal(100, 20, SHAPE), 0).astype(np.float32) for _ in MODALITIES]


def expected_labels(flair, values=(2, 1, 3)):
    """What the model says of a case, in the grid of its file."""
    inside = flair != 0
    standardised = np.zeros(flair.shape)
    standardised[inside] = (flair[inside] - flair[inside].mean(dtype=float)) / flair[inside].std(dtype=float)
    labels = np.zeros(flair.shape, np.uint8)
    for threshold, value in zip((0.0, 0.5, 1.0), values, strict=True):
        labels[inside & (standardised >= threshold)] = value
    return labels


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_label_map_has_its_image_s_grid_and_lies_on_it(orientation, segmenter, predict, tmp_path):
    affine = affine_of(orientation)
    files = write_four(tmp_path, volumes(), affine)
    outcome = predict_cases(segmenter, four_files(files, "p"), tmp_path / "out", predict, progress=False)
    assert outcome.predicted == ["p"]
    written, image = nib.load(tmp_path / "out" / "p.nii.gz"), nib.load(files["FLAIR"])
    assert written.shape == image.shape
    np.testing.assert_array_equal(written.affine, image.affine)
    assert nib.aff2axcodes(written.affine) == tuple(orientation)
    assert written.get_data_dtype() == np.uint8
    # A voxel at a threshold may be rounded to the other side of it.
    wrong = np.asarray(written.dataobj) != expected_labels(volumes()[0])
    assert wrong.mean() < 0.005


@pytest.mark.parametrize(("qform_code", "sform_code"), [(1, 0), (0, 2), (1, 1), (0, 0)])
def test_the_header_says_where_the_label_map_lies_as_its_image_s_does(
    qform_code, sform_code, segmenter, predict, tmp_path
):
    files = {}
    turned = affine_of("LPS")
    turned[:3, :3] = turned[:3, :3] @ np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    for modality, volume in zip(MODALITIES, volumes(), strict=True):
        image = nib.Nifti1Image(volume, turned)
        image.set_qform(turned, qform_code)
        image.set_sform(turned, sform_code)
        image.header["descrip"] = b"of somebody"
        image.header["cal_max"] = 99
        files[modality] = tmp_path / f"{modality}.nii.gz"
        nib.save(image, files[modality])
    predict_cases(segmenter, four_files(files, "p"), tmp_path / "out", predict, progress=False)
    written, image = nib.load(tmp_path / "out" / "p.nii.gz").header, nib.load(files["FLAIR"]).header
    kept = (
        "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "srow_x", "srow_y", "srow_z",
        "pixdim", "xyzt_units",
    )  # fmt: skip
    for name in kept:
        np.testing.assert_array_equal(written[name], image[name], err_msg=name)
    assert (written["descrip"].item(), written["cal_max"].item()) == (b"", 0)
    slope, inter = written.get_slope_inter()
    assert (slope, inter) in ((None, None), (1.0, 0.0))


@pytest.mark.parametrize("layout", ["msd", "brats2021", "brats2023", "nnunet"])
def test_every_layout_is_predicted_with_its_own_label_values(layout, layout_roots, segmenter, predict, tmp_path):
    data = read_input(layout_roots[layout])
    outcome = predict_cases(segmenter, data, tmp_path, predict, progress=False)
    known = read_data(layout_roots[layout])
    assert sorted(outcome.predicted) == sorted(case.id for case in (*known.cases, *known.unlabelled))
    assert not outcome.failed
    for case in data.unlabelled:
        written, image = nib.load(tmp_path / f"{case.id}.nii.gz"), nib.load(case.images[0])
        assert written.shape == image.shape[:3]
        np.testing.assert_array_equal(written.affine, image.affine)
        assert set(np.unique(written.dataobj)) == {0, *known.regions["WT"]}


@pytest.mark.parametrize("layout", ["msd", "brats2021", "brats2023", "nnunet"])
def test_a_case_of_every_layout_may_have_any_orientation(layout, layout_roots, segmenter, predict, tmp_path):
    """The label map of a turned image is the turned label map, whether the image is one file or four."""
    data = read_input(layout_roots[layout])
    case = data.unlabelled[0]
    sources = [nib.load(path) for path in case.images]
    turned = []
    for orientation in ORIENTATIONS:
        name = "".join(orientation)
        paths = tuple(tmp_path / f"{name}-{number}.nii.gz" for number in range(len(sources)))
        for path, image in zip(paths, sources, strict=True):
            turn = nib.orientations.ornt_transform(
                nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(orientation)
            )
            nib.save(image.as_reoriented(turn), path)
        turned.append(replace(case, id=name, images=paths))
    turned_data = replace(data, unlabelled=(case, *turned))
    outcome = predict_cases(segmenter, turned_data, tmp_path / "out", predict, progress=False)
    assert len(outcome.predicted) == 1 + 48
    upright = nib.load(tmp_path / "out" / f"{case.id}.nii.gz")
    assert set(np.unique(upright.dataobj)) == {0, *data.regions["WT"]}
    for one in turned:
        written, image = nib.load(tmp_path / "out" / f"{one.id}.nii.gz"), nib.load(one.images[0])
        assert written.shape == image.shape[:3]
        np.testing.assert_array_equal(written.affine, image.affine)
        assert "".join(nib.aff2axcodes(written.affine)) == one.id
        back = nib.orientations.ornt_transform(nib.io_orientation(written.affine), nib.io_orientation(upright.affine))
        # The mean over the brain is of the same numbers in another order: a voxel at a threshold may be rounded.
        wrong = np.asarray(written.as_reoriented(back).dataobj) != np.asarray(upright.dataobj)
        assert wrong.mean() < 1e-3


def test_a_folder_of_4_d_files_is_an_input_as_it_is(layout_roots, segmenter, predict, tmp_path):
    data = read_input(layout_roots["msd"] / "imagesTs")
    (case,) = data.unlabelled
    assert (data.layout, case.images[0].parent.name) == ("msd", "imagesTs")
    assert predict_cases(segmenter, data, tmp_path / "out", predict, progress=False).predicted == [case.id]
    # A bad file does not end the others, and label maps below are no cases.
    mixed, good = tmp_path / "mixed", case.images[0].read_bytes()
    mixed.mkdir()
    (mixed / "a.nii.gz").write_bytes(good)
    (mixed / "b.nii.gz").write_bytes(b"no image")
    (mixed / "c.nii.gz").write_bytes(good[:60] + bytes([good[60] ^ 255]) + good[61:])
    (mixed / "d.nii.gz").write_bytes(good[: len(good) // 2])
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.float32), np.eye(4)), mixed / "a.nii")
    for kept in ([], ["a"]):
        outcome = predict_cases(segmenter, read_input(mixed), mixed / "out", predict, progress=False)
        assert (outcome.predicted + outcome.kept, outcome.kept) == (["a"], kept)
        assert sorted(outcome.failed) == ["b", "c", "d"]
    for name in "acd":
        (mixed / f"{name}.nii.gz").unlink()
    with pytest.raises(MisError, match="one of the layouts"):
        read_input(mixed)


def test_no_file_that_is_read_or_of_somebody_else_is_written_over(layout_roots, segmenter, predict, tmp_path, capsys):
    image = read_input(layout_roots["msd"] / "imagesTs").unlabelled[0].images[0]
    inputs, others = tmp_path / "in", tmp_path / "others"
    for folder in (inputs, others):
        folder.mkdir()
        (folder / image.name).write_bytes(image.read_bytes())
    data = read_input(inputs)
    for folder in (inputs, others):
        for again in (False, True):
            with pytest.raises(MisError, match=f"nothing must be written over .*, got {folder / image.name}"):
                predict_cases(segmenter, data, folder, predict, again=again, progress=False)
        assert [path.name for path in folder.iterdir()] == [image.name]
        assert (folder / image.name).read_bytes() == image.read_bytes()
    for output in (inputs, inputs / "below"):
        assert main(["--model", "none.keras", str(inputs), str(output)]) == 2
        assert "OUTPUT must be a folder outside of INPUT" in capsys.readouterr().err
    # What a killed call has begun is its own.
    predict_cases(segmenter, data, tmp_path / "out", predict, progress=False)
    notes = json.loads((tmp_path / "out" / NOTES).read_text())
    notes["cases"] = dict.fromkeys(notes["cases"])
    (tmp_path / "out" / NOTES).write_text(json.dumps(notes))
    assert predict_cases(segmenter, data, tmp_path / "out", predict, progress=False).predicted == [
        data.unlabelled[0].id
    ]


def test_without_params_a_model_is_applied_as_the_project_s_own_params_say():
    assert load_params(ROOT / "params.yaml").predict == PLAIN


def test_a_script_outside_of_a_project_needs_no_params(model_file, layout_roots, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = str(layout_roots["msd"] / "imagesTs")
    assert main(["--model", str(model_file), folder, "out", "--set", "predict.threshold=0.4"]) == 0
    assert "1 label maps written" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / NOTES).read_text())["recipe"]["predict"]["threshold"] == 0.4
    for wrong, words in (
        ("predict.overlap=2", "predict.overlap: input should be less than 1, got 2"),
        ("predict.overlp=0.5", "did you mean predict.overlap?"),
        ("train.epochs=2", "a parameter must exist, got train.epochs"),
    ):
        assert main(["--model", str(model_file), folder, "out", "--set", wrong]) == 2
        assert words in capsys.readouterr().err
    assert main(["--model", str(model_file), folder, "out"]) == 2
    assert "which differ in predict.threshold (0.4 there, 0.5 now)" in capsys.readouterr().err
    assert main(["--model", str(model_file), "--params", "none.yaml", folder, "other"]) == 2
    assert "the params file must exist, got none.yaml" in capsys.readouterr().err


def test_the_best_trials_of_a_study_are_an_ensemble(model_file, tmp_path, capsys):
    tracker = MemoryTracker()
    study = tracker.start_run(TUNE, "study", tags={"mis.study": "s", "mis.kind": "study"})
    study.finish()
    for number, dice in enumerate((0.2, 0.9, 0.5)):
        trial = tracker.start_run(TUNE, f"trial-{number}", tags={"mis.study": "s", "mis.trial": f"00{number}"})
        trial.log_metrics({"best/dice": dice})
        if number:
            (tmp_path / "best.keras").write_bytes(model_file.read_bytes())
            trial.log_file(tmp_path / "best.keras", "model")
        trial.finish()
    runs = {
        run.tags["mis.trial"]: run.id
        for run in tracker.find_finished(TUNE, {"mis.study": "s"})
        if "mis.trial" in run.tags
    }
    found = best_models(study.id, 2, tmp_path, lambda: tracker)
    assert [path.parent.name for path in found] == [runs["001"], runs["002"]]
    assert len(load_segmenter(found).models) == 2
    with pytest.raises(
        MisError, match=r"--best must be at most 2, the trials of study s whose models were kept.*got 3"
    ):
        best_models(study.id, 3, tmp_path, lambda: tracker)
    with pytest.raises(MisError, match="--best takes the run of a search"):
        best_models(runs["001"], 1, tmp_path, lambda: tracker)
    for arguments in (["--model", "a", "--model", "b", "--best", "2"], ["--model", "a", "--best", "0"]):
        assert main([*arguments, "in", "out"]) == 2
        assert "--best must be at least 1 and stand beside one --model" in capsys.readouterr().err


def test_a_resampled_case_comes_back_to_its_own_grid(segmenter, predict, tmp_path):
    affine = affine_of("LPS", spacing=(1.0, 1.0, 2.0))
    files = write_four(tmp_path, volumes(), affine)
    predict_cases(segmenter, four_files(files, "p"), tmp_path / "out", predict, progress=False)
    written = nib.load(tmp_path / "out" / "p.nii.gz")
    assert written.shape == SHAPE
    np.testing.assert_array_equal(written.affine, affine)
    assert (np.asarray(written.dataobj) > 0).any()


def test_probabilities_are_written_on_the_same_grid(segmenter, predict, tmp_path):
    files = write_four(tmp_path, volumes(), affine_of("RAS"))
    predict_cases(segmenter, four_files(files, "p"), tmp_path / "out", predict, with_probabilities=True, progress=False)
    written = nib.load(tmp_path / "out" / "p_probabilities.nii.gz")
    assert written.shape == (*SHAPE, 3)
    assert written.get_data_dtype() == np.uint8
    probability, labels = written.get_fdata(), np.asarray(nib.load(tmp_path / "out" / "p.nii.gz").dataobj)
    assert probability.min() >= 0
    assert 0.99 < probability.max() < 1 + 1e-6
    sure = np.abs(probability[..., 0] - 0.5) > 0.01
    np.testing.assert_array_equal((labels > 0)[sure], (probability[..., 0] > 0.5)[sure])


def test_a_call_goes_on_where_another_was_interrupted(layout_roots, segmenter, predict, tmp_path):
    data = read_input(layout_roots["msd"])
    predict_cases(segmenter, data, tmp_path, predict, progress=False)
    first, *others = sorted(tmp_path.glob("*.nii.gz"))
    first.unlink()
    before = {path: path.stat().st_mtime_ns for path in others}
    outcome = predict_cases(segmenter, data, tmp_path, predict, progress=False)
    assert outcome.predicted == [first.name.removesuffix(".nii.gz")]
    assert len(outcome.kept) == len(others)
    assert {path: path.stat().st_mtime_ns for path in others} == before
    again = predict_cases(segmenter, data, tmp_path, predict, again=True, progress=False)
    assert not again.kept


def test_label_maps_of_other_models_or_windows_are_not_mixed(layout_roots, segmenter, predict, tmp_path):
    data = read_input(layout_roots["msd"])
    predict_cases(segmenter, data, tmp_path, predict, progress=False)
    more = predict.model_copy(update={"batch_size": 1})
    assert predict_cases(segmenter, data, tmp_path, more, progress=False).kept
    other = predict.model_copy(update={"threshold": 0.4})
    with pytest.raises(MisError, match=r"of one kind.* differ in predict.threshold"):
        predict_cases(segmenter, data, tmp_path, other, progress=False)
    with pytest.raises(MisError, match="differ in models"):
        predict_cases(replace(segmenter, digest="x"), data, tmp_path, predict, progress=False)
    predict_cases(segmenter, data, tmp_path, other, again=True, progress=False)
    assert json.loads((tmp_path / NOTES).read_text())["recipe"]["predict"]["threshold"] == 0.4


def test_label_maps_of_two_models_are_never_taken_for_one_s(layout_roots, segmenter, predict, tmp_path):
    """Neither where --again replaces a part of a folder, nor where it is interrupted."""
    data = read_input(layout_roots["msd"])
    predict_cases(segmenter, data, tmp_path, predict, progress=False)
    other = predict.model_copy(update={"threshold": 0.4})
    one = replace(data, unlabelled=data.unlabelled[:1])
    predict_cases(segmenter, one, tmp_path, other, again=True, progress=False)
    outcome = predict_cases(segmenter, data, tmp_path, other, progress=False)
    assert outcome.kept == [data.unlabelled[0].id]
    assert len(outcome.predicted) == len(data.unlabelled) - 1


def test_other_images_of_the_same_names_are_predicted_anew(segmenter, predict, tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder, seed in ((first, 0), (second, 1)):
        folder.mkdir()
        write_four(folder, volumes(seed), affine_of("RAS"))
    labels = []
    for folder in (first, second):
        files = {modality: folder / f"{modality}.nii.gz" for modality in MODALITIES}
        outcome = predict_cases(segmenter, four_files(files, "p"), tmp_path / "out", predict, progress=False)
        assert outcome.predicted == ["p"]
        labels.append(np.asarray(nib.load(tmp_path / "out" / "p.nii.gz").dataobj))
    assert (labels[0] != labels[1]).any()
    # What fails now leaves no label map of before.
    files["T2w"].write_bytes(b"no image")
    outcome = predict_cases(segmenter, four_files(files, "p"), tmp_path / "out", predict, progress=False)
    assert list(outcome.failed) == ["p"]
    assert not (tmp_path / "out" / "p.nii.gz").exists()


def test_a_bad_case_does_not_end_the_others_and_is_listed(
    layout_roots, model_file, project, tmp_path, capsys, monkeypatch
):
    root = tmp_path / "cases"
    root.mkdir()
    for source in sorted((layout_roots["brats2023"]).rglob("*.nii.gz")):
        (root / source.name).write_bytes(source.read_bytes())
    broken = min(root.glob("*-t1c.nii.gz"))
    broken.write_bytes(broken.read_bytes()[:-100])
    monkeypatch.chdir(project)
    assert main(["--model", str(model_file), str(root), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().out
    case = broken.name.removesuffix("-t1c.nii.gz")
    assert f"not predicted: {case}: {broken.name}: a file must be complete NIfTI" in said
    assert case in (tmp_path / "out" / FAILED).read_text()
    written = {path.name.removesuffix(".nii.gz") for path in (tmp_path / "out").glob("*.nii.gz")}
    assert written == {path.name.removesuffix("-t1c.nii.gz") for path in root.glob("*-t1c.nii.gz")} - {case}
    assert f"{len(written)} label maps written" in said


def test_four_files_named_by_modality(model_file, project, tmp_path, capsys, monkeypatch):
    files = write_four(tmp_path, volumes(), affine_of("LPS"))
    monkeypatch.chdir(project)
    options = [
        f"--{option}={files[modality]}"
        for modality, option in zip(MODALITIES, ("flair", "t1", "t1gd", "t2"), strict=True)
    ]
    assert main(["--model", str(model_file), *options, "--labels", "brats2021", str(tmp_path / "patient.nii.gz")]) == 0
    labels = np.asarray(nib.load(tmp_path / "patient.nii.gz").dataobj)
    assert set(np.unique(labels)) == {0, 1, 2, 4}
    capsys.readouterr()
    assert main(["--model", str(model_file), *options[:3], str(tmp_path / "patient.nii.gz")]) == 2
    assert "none with --t2" in capsys.readouterr().err
    assert main(["--model", str(model_file), *options, str(tmp_path / "patient")]) == 2
    assert "end in .nii.gz" in capsys.readouterr().err
    assert main(["--model", str(model_file), str(tmp_path)]) == 2
    assert "INPUT and OUTPUT" in capsys.readouterr().err


def test_a_model_of_a_run_in_mlflow(model_file, project, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(project)
    tracker = MlflowTracker(load_settings({}, project))
    run, bare = (tracker.start_run("mis/train", name) for name in ("with", "without"))
    best = tmp_path / "best.keras"
    best.write_bytes(model_file.read_bytes())
    run.log_file(best, "model")
    files = write_four(tmp_path, volumes(), affine_of("LPS"))
    options = [
        f"--{option}={files[modality]}"
        for modality, option in zip(MODALITIES, ("flair", "t1", "t1gd", "t2"), strict=True)
    ]
    outputs = []
    for model in (str(model_file), run.id):
        output = tmp_path / model.replace("/", "_") / "patient.nii.gz"
        assert main(["--model", model, *options, str(output)]) == 0
        outputs.append(np.asarray(nib.load(output).dataobj))
    np.testing.assert_array_equal(*outputs)
    capsys.readouterr()
    for model, words in (
        (bare.id, "must have a model"),
        ("0" * 32, "must be a file or a run"),
        ("none", "must be a model's file"),
    ):
        assert main(["--model", model, *options, str(tmp_path / "patient.nii.gz")]) == 2
        assert words in capsys.readouterr().err


def test_one_4_d_file(layout_roots, segmenter, predict, tmp_path):
    image = min((layout_roots["msd"] / "imagesTs").glob("*.nii.gz"))
    outcome = predict_cases(segmenter, read_input(image), tmp_path, predict, progress=False)
    assert outcome.predicted == [image.name.removesuffix(".nii.gz")]


def test_models_that_differ_do_not_predict_together(model_file, card, tmp_path):
    other = tmp_path / "other.keras"
    image = keras.Input((None, None, None, 4))
    keras.Model(image, keras.layers.Conv3D(1, 1)(image)).save(other)
    add_card(other, replace(card, regions=("WT",)))
    with pytest.raises(MisError, match="the same regions"):
        load_segmenter([model_file, other])


def test_a_model_without_its_preprocessing_is_refused(tmp_path):
    image = keras.Input((None, None, None, 4))
    bare = tmp_path / "bare.keras"
    keras.Model(image, keras.layers.Conv3D(3, 1)(image)).save(bare)
    for path, words in ((bare, "must have its preprocessing"), (tmp_path / "none.keras", "must exist")):
        with pytest.raises(MisError, match=words):
            load_segmenter([path])
    (tmp_path / "text.keras").write_text("no zip")
    with pytest.raises(MisError, match="must be a model of Keras"):
        load_segmenter([tmp_path / "text.keras"])


def test_a_card_comes_back_and_keras_reads_the_file_all_the_same(model_file, card):
    assert read_card(model_file) == card
    assert keras.saving.load_model(model_file).output_shape[-1] == 3


def test_a_window_must_fit_the_network(segmenter, predict):
    with pytest.raises(MisError, match=r"multiple of 8.*the next that fits is \(16, 8, 8\)"):
        segmenter.window((20, 20, 20), predict.model_copy(update={"window": (12, 8, 8)}))
    assert segmenter.window((20, 20, 20), predict) == (8, 8, 8)
    whole = replace(segmenter, card=replace(segmenter.card, patch_size=None, grid=(16, 24, 16)))
    assert whole.window((12, 20, 20), predict) == (16, 24, 24)
