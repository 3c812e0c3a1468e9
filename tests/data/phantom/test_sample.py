import numpy as np
import pytest

from mis.data.phantom.sample import MODALITIES, SIGNAL, sample_case


def test_the_same_seed_gives_the_same_sample_and_another_seed_another():
    first, again, other = (sample_case(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_every_tissue_has_a_signal_in_every_modality():
    scan = sample_case(np.random.default_rng(0)).scan
    assert [tissue for tissue, _ in scan.signal] == list(SIGNAL)
    assert all(len(means) == len(MODALITIES) for _, means in scan.signal)
    assert len(scan.scale) == len(scan.bias) == len(scan.noise) == len(MODALITIES)


def test_about_one_tumour_in_five_does_not_enhance():
    tumours = [sample_case(np.random.default_rng(seed)).tumour for seed in range(500)]
    assert np.mean([tumour.necrosis == 1 for tumour in tumours]) == pytest.approx(0.2, abs=0.05)


def test_a_tumour_is_stretched_without_a_change_of_its_volume():
    for seed in range(20):
        tumour = sample_case(np.random.default_rng(seed)).tumour
        assert np.prod(tumour.stretch) == pytest.approx(1)
        assert 4 / 3 * np.pi * tumour.radius_mm**3 == pytest.approx(tumour.volume * 1.5e6)
