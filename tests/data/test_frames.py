"""From stored frames to the model's input: which, which part, at which size."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from msam.data import _frames
from msam.data._frames import at_random, evenly, random_crop, resized, standardised


@given(st.integers(1, 40), st.integers(1, 40))
def test_evenly_spaced_frames_are_ascending_and_symmetric(count, wanted):
    found = evenly(count, wanted)
    assert len(found) == wanted
    assert found == sorted(found)
    assert found[0] >= 0
    assert found[-1] < count
    if wanted <= count:
        assert len(set(found)) == wanted


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_random_frames_are_different_and_ascending(count, wanted, seed):
    found = at_random(count, wanted, np.random.default_rng(seed))
    assert found == (sorted(set(found)) if wanted <= count else evenly(count, wanted))
    assert len(found) == wanted
    assert set(found) <= set(range(count))


def test_every_frame_has_the_same_chance():
    rng = np.random.default_rng(0)
    counts = np.bincount([number for _ in range(3000) for number in at_random(6, 2, rng)], minlength=6)
    assert scipy.stats.chisquare(counts).pvalue > 1e-4


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 99))
def test_a_crop_lies_within_the_picture(height, width, seed):
    part = random_crop(height, width, np.random.default_rng(seed))
    assert 0 <= part.top <= part.top + part.height <= height
    assert 0 <= part.left <= part.left + part.width <= width
    assert part.height > 0
    assert part.width > 0


def test_crops_are_distributed_as_torchvisions():
    """Its rule, written down once more: area uniform in [0.08, 1], log-ratio uniform, rejected where it does not fit."""
    crops = [random_crop(360, 480, np.random.default_rng([1, n])) for n in range(4000)]
    generator = torch.Generator().manual_seed(0)
    reference = [by_torchvision(360, 480, generator) for _ in range(4000)]
    for value in (
        lambda c: c[2] * c[3],
        lambda c: c[3] / c[2],
        lambda c: c[0] / max(1, 360 - c[2]),
        lambda c: c[1] / max(1, 480 - c[3]),
    ):
        assert scipy.stats.ks_2samp([value(c) for c in crops], [value(c) for c in reference]).pvalue > 1e-3


def by_torchvision(height, width, generator):
    for _ in range(10):
        target = height * width * torch.empty(1).uniform_(0.08, 1, generator=generator).item()
        ratio = torch.empty(1).uniform_(math.log(3 / 4), math.log(4 / 3), generator=generator).exp().item()
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = torch.randint(0, height - h + 1, (1,), generator=generator).item()
            left = torch.randint(0, width - w + 1, (1,), generator=generator).item()
            return top, left, h, w
    raise AssertionError("ten tries that do not fit a picture of 4:3 do not happen")


@pytest.mark.parametrize(
    ("size", "wanted"), [((10, 1000), (0, 493, 10, 13)), ((1000, 10), (493, 0, 13, 10)), ((2, 100), (0, 48, 2, 3))]
)
def test_where_nothing_fits_the_centre_is_taken(size, wanted):
    class NeverFits:
        def uniform(self, low, high):
            return high

    assert _frames._central(*size) == wanted
    if size == (10, 1000):
        assert random_crop(*size, NeverFits()) == wanted


class TestResizing:
    def test_the_whole_picture_changes_its_ratio(self):
        frame = np.zeros((72, 96, 3), np.uint8)
        frame[:, 48:] = 200
        found = resized(frame)
        assert (found.shape, found.dtype) == ((3, 224, 224), torch.uint8)
        assert found[:, :, :100].max() == 0
        assert found[:, :, 124:].min() == 200

    def test_it_is_bilinear_with_antialiasing_to_one_step(self):
        frame = np.random.default_rng(0).integers(0, 256, (360, 480, 3), np.uint8)
        exact = torch.nn.functional.interpolate(
            torch.from_numpy(frame).permute(2, 0, 1)[None].double(), (224, 224), mode="bilinear", antialias=True
        )[0]
        assert (resized(frame).double() - exact).abs().max() <= 1.01

    def test_a_part_is_the_part_alone_and_a_flip_mirrors(self):
        frame = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
        part = _frames.Crop(10, 20, 30, 40)
        alone = resized(np.ascontiguousarray(frame[10:40, 20:60]))
        assert torch.equal(resized(frame, part), alone)
        assert torch.equal(resized(frame, part, flip=True), alone.flip(2))

    def test_a_read_only_map_is_no_matter(self):
        frame = np.zeros((4, 4, 3), np.uint8)
        frame.setflags(write=False)
        assert resized(frame, size=2).shape == (3, 2, 2)


def test_standardising_is_by_imagenet():
    frames = [torch.full((3, 2, 2), value, dtype=torch.uint8) for value in (0, 255)]
    found = standardised(frames)
    assert found.shape == (3, 2, 2, 2)
    assert found[:, 0, 0, 0].tolist() == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    assert found[:, 1, 0, 0].tolist() == pytest.approx([0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225])
