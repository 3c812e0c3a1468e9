import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mis.predict.inference import Inference, predict_volume

few = settings(max_examples=25, deadline=None)


def inference(window=(4, 4, 4), overlap=0.5, *, mirror=False, batch_size=1):
    return Inference(window, overlap, mirror=mirror, batch_size=batch_size)


def voxelwise(batch):
    """A network whose result depends on each voxel alone."""
    return 1 / (1 + np.exp(-batch[..., :2]))


def volume(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=(*shape, 3)).astype(np.float32)


@given(
    shape=st.tuples(*[st.integers(1, 11)] * 3), window=st.tuples(*[st.sampled_from([2, 4, 6])] * 3),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.75]), mirror=st.booleans(), batch_size=st.integers(1, 5),
)  # fmt: skip
@few
def test_where_a_voxel_depends_on_itself_windows_change_nothing(shape, window, overlap, mirror, batch_size):
    image = volume(*shape)
    result = predict_volume([voxelwise], image, 2, inference(window, overlap, mirror=mirror, batch_size=batch_size))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, voxelwise(image), atol=1e-6)


def test_a_window_without_brain_is_not_predicted():
    image = np.zeros((12, 4, 4, 3), np.float32)
    image[:3] = 1
    seen = []

    def predict(batch):
        seen.append(batch.shape)
        return voxelwise(batch)

    result = predict_volume([predict], image, 2, inference(overlap=0.0))
    assert seen == [(1, 4, 4, 4, 3)]
    assert (result[:4] > 0).all()
    assert (result[4:] == 0).all()


def test_windows_come_in_full_batches_but_for_the_last():
    sizes, done = [], []

    def predict(batch):
        sizes.append(len(batch))
        return voxelwise(batch)

    predict_volume([predict], volume(12, 4, 4), 2, inference(overlap=0.5, batch_size=2), done.append)
    assert sizes == done == [2, 2, 1]


def test_near_a_window_s_middle_its_own_prediction_counts_most():
    number = iter(range(9))

    def predict(batch):
        return np.full((*batch.shape[:4], 1), next(number), np.float32)

    # Windows at 0, 2 and 4 of 8 voxels.
    result = predict_volume([predict], volume(8, 4, 4), 1, inference())[:, 1, 1, 0]
    assert (np.diff(result) >= 0).all()
    assert result[:2].tolist() == [0, 0]
    assert result[-2:].tolist() == [2, 2]
    assert 0 < result[2] < 0.5 < result[3] < 1


def test_each_reflection_is_turned_back():
    def leans(batch):
        """A network whose result is higher towards the end of each axis."""
        return np.broadcast_to(np.linspace(0, 1, batch.shape[1])[None, :, None, None, None], (*batch.shape[:4], 1))

    image = volume(4, 4, 4)
    plain = predict_volume([leans], image, 1, inference())
    mirrored = predict_volume([leans], image, 1, inference(mirror=True))
    np.testing.assert_allclose(mirrored, (plain + plain[::-1]) / 2, atol=1e-6)
    np.testing.assert_allclose(mirrored, 0.5, atol=1e-6)


def test_all_eight_reflections_are_seen():
    seen = []

    def predict(batch):
        seen.append(batch[0, 0, 0, 0, 0])
        return voxelwise(batch)

    image = np.arange(8, dtype=np.float32).reshape(2, 2, 2, 1) + 1
    predict_volume([predict], np.repeat(image, 3, axis=-1), 2, inference((2, 2, 2), mirror=True))
    assert sorted(seen) == list(range(1, 9)), "each corner has been the first voxel"


def test_models_have_the_same_weight():
    def constant(value):
        return lambda batch: np.full((*batch.shape[:4], 1), value, np.float32)

    result = predict_volume([constant(0.1), constant(0.2), constant(0.6)], volume(4, 4, 4), 1, inference())
    np.testing.assert_allclose(result, 0.3, rtol=1e-6)


def test_an_image_that_is_smaller_than_a_window_lies_in_its_middle():
    seen = []

    def predict(batch):
        seen.append(batch[0])
        return voxelwise(batch)

    image = volume(3, 2, 4)
    result = predict_volume([predict], image, 2, inference())
    np.testing.assert_allclose(result, voxelwise(image), atol=1e-6)
    (window,) = seen
    np.testing.assert_array_equal(window[0:3, 1:3], image)
