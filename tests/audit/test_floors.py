"""Descriptors against explicit counts, conditions against the physics of two dyes, and the known scores."""

from functools import partial

import cv2
import numpy as np
import pytest
import torch

from lgffem_core.audit import floors
from lgffem_core.config.params import Backbone as BackboneParams
from lgffem_core.config.params import Kimia, Synthetic
from lgffem_core.data.augment import evaluation_resize
from lgffem_core.data.loading import read_rgb
from lgffem_core.data.sets.kimia import SET
from lgffem_core.data.synthetic.make import kimia_patch
from lgffem_core.data.synthetic.tissue import Stain, absorb
from lgffem_core.data.table import build_table
from lgffem_core.model.backbone import Backbone
from lgffem_core.retrieval.encoder import Encoder, embed_images
from lgffem_core.retrieval.protocols import evaluate


@pytest.fixture(scope="module")
def tissue():
    """Six synthetic patches of 96 pixels, of six scans."""
    return [kimia_patch(Synthetic(), scan, "train", 0) for scan in range(6)]


def plain_patches():
    """What a slide has beside tissue: glass, a grey field, noisy glass, a fold in one colour."""
    noise = np.random.default_rng(0).normal(245, 3, (64, 64, 3)).clip(0, 255).astype(np.uint8)
    one_colour = np.full((64, 64, 3), (160, 60, 150), np.uint8)
    return [np.full((64, 64, 3), 255, np.uint8), np.full((64, 64, 3), 120, np.uint8), noise, one_colour]


def test_mean_colour_and_histograms_against_numpy(tissue):
    colours, apart, joint = (
        floors.mean_colour(tissue),
        floors.rgb_histogram(tissue),
        floors.rgb_histogram(tissue, joint=True),
    )
    edges = np.arange(0, 257, 32)
    for row, image in enumerate(tissue):
        pixels = image.reshape(-1, 3).astype(float)
        np.testing.assert_allclose(colours[row], pixels.sum(axis=0) / len(pixels), rtol=1e-6)
        np.testing.assert_array_equal(apart[row], np.concatenate([np.histogram(c, edges)[0] for c in pixels.T]))
        np.testing.assert_array_equal(joint[row], np.histogramdd(pixels, [edges] * 3)[0].ravel())
    assert apart.shape == (6, 24) and joint.shape == (6, 512) and joint.dtype == np.float32


def test_hellinger_distance_of_two_histograms():
    p, q = floors.hellinger(np.array([[9.0, 1, 0], [20, 0, 20]]))
    expected = 2 - 2 * np.sqrt(0.9 * 0.5)  # 2 − 2·Σ√(p·q)
    assert ((p - q) ** 2).sum() == pytest.approx(expected)


def test_dyes_are_recovered_from_beer_lambert():
    """Every mixture of two dyes, seen through the published absorption of each."""
    concentrations = np.stack(np.meshgrid(np.linspace(0, 1.2, 40), np.linspace(0, 1.2, 40)), axis=-1)
    vectors = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    image = np.rint(256 * np.exp(-concentrations @ vectors) - 1).astype(np.uint8)
    found = floors.dyes(image)
    np.testing.assert_allclose(found[..., :2], concentrations, atol=0.03)
    np.testing.assert_allclose(found[..., 2], 0, atol=0.03)
    expected = np.histogramdd(found[..., :2].reshape(-1, 2).clip(0, 1.59), [np.arange(17) / 10] * 2)[0]
    np.testing.assert_array_equal(floors.stain_histogram([image])[0], expected.ravel())


class Stages(torch.nn.Module):
    """A backbone of two fixed stages: the image, and every fourth pixel of it times three."""

    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)

    def __init__(self):
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return [images, 3 * images[:, :2, ::4, ::4]]


def pooled(backbone, size):
    return Encoder("pooled", "not kept", lambda: floors.PooledBackbone(backbone), evaluation_resize(size))


def test_pooled_stages_against_a_loop():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(5)]
    found = embed_images(pooled(Stages(), 32), images, batch_size=2)
    for row, image in zip(found, images, strict=True):
        scaled = (image / 255 - Stages.mean) / Stages.std
        first, second = scaled.mean(axis=(0, 1)), 3 * scaled[::4, ::4, :2].mean(axis=(0, 1))
        expected = np.concatenate([first / np.linalg.norm(first), second / np.linalg.norm(second)])
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)
    assert found.shape == (5, 5)


def test_grey_is_luminance_in_every_channel(tissue):
    for image in tissue:
        expected = image @ [0.299, 0.587, 0.114]
        np.testing.assert_allclose(floors.without_colour(image), np.repeat(expected[..., None], 3, axis=2), atol=0.6)


def stained(stain, seed=0):
    """The same tissue in another laboratory's stain: nuclei of haematoxylin on eosin, and some glass."""
    rng = np.random.default_rng(seed)
    haematoxylin = cv2.GaussianBlur(rng.normal(0, 1, (96, 96)), (0, 0), 2) * 5
    eosin = 0.5 + cv2.GaussianBlur(rng.normal(0, 1, (96, 96)), (0, 0), 4) * 2
    concentrations = np.stack([haematoxylin.clip(0), eosin.clip(0.05)], axis=-1)
    concentrations[:10] = 0
    return absorb(concentrations, stain)


PINK, BLUE = Stain((0.65, 0.70, 0.29), (0.10, 0.90, 0.35)), Stain((0.80, 0.62, 0.24), (0.22, 0.75, 0.20))


def test_macenko_gives_the_tissue_the_stain_of_the_reference():
    """The truth is known: the same concentrations seen through the reference's dyes."""
    normalised = floors.macenko(stained(PINK))(stained(BLUE)).astype(float)
    truth, before = stained(PINK).astype(float), stained(BLUE).astype(float)
    inside = slice(10, None)
    after = np.abs(normalised - truth)[inside].mean()
    assert after < 0.35 * np.abs(before - truth)[inside].mean()


def test_reinhard_gives_lab_the_mean_and_deviation_of_the_reference(tissue):
    """Measured with OpenCV's Lab. Colours that RGB does not have are clipped, which moves them a little."""

    def moments(image):
        lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        return np.concatenate([lab.mean(axis=(0, 1)), lab.std(axis=(0, 1))])

    reference = stained(Stain((0.95, 1.20, 0.40), (0.10, 1.40, 0.80)))
    for image in tissue[:3]:
        after = floors.reinhard(reference)(image)
        before = np.abs(moments(image) - moments(reference)).max()
        assert np.abs(moments(after) - moments(reference)).max() < 0.3 * before


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("normaliser", ["macenko", "reinhard"])
def test_patches_without_stain_are_kept_and_counted(tissue, normaliser):
    plain = plain_patches()
    found = floors.under(getattr(floors, normaliser)(tissue[0]), [tissue[1], *plain, tissue[2]])
    assert found.unchanged.tolist() == [False, True, True, True, True, False]
    for before, after in zip(plain, found.images[1:5], strict=True):
        np.testing.assert_array_equal(before, after)
    assert (found.images[0] != tissue[1]).any()


@pytest.mark.parametrize("normaliser", ["macenko", "reinhard"])
def test_a_reference_without_stain_is_refused(normaliser):
    for plain in plain_patches():
        with pytest.raises(ValueError, match="reference patch"):
            getattr(floors, normaliser)(plain)


def test_what_goes_wrong_in_the_numbers_is_no_image(tissue):
    """A normaliser that divides by zero, which NumPy alone would let through as black."""

    class Broken:
        def fit(self, image):
            pass

    apply = floors.stain_normaliser(Broken(), tissue[0], lambda image: (image / np.float64(0)).astype(np.uint8))
    assert floors.under(apply, tissue[:2]).unchanged.all()


def test_stain_jitter_scales_and_shifts_each_dye(tissue):
    """Read back from the image, each dye is a straight line of what it was."""
    image = stained(PINK)
    jittered = floors.stain_jitter(image, seed=3, strength=0.1)
    bright = (jittered > 5).all(axis=2) & (jittered < 254).all(axis=2)
    for before, after in zip(floors.dyes(image)[bright].T, floors.dyes(jittered)[bright].T, strict=True):
        slope, shift = np.polyfit(before, after, 1)
        assert 0.88 <= slope <= 1.12 and abs(shift) <= 0.12
        assert np.abs(slope * before + shift - after).max() < 0.06
    assert np.abs(jittered.astype(int) - image).mean() > 1


def test_stain_jitter_depends_on_its_seed_alone(tissue):
    first = floors.stain_jitter(tissue[0], seed=1)
    np.random.seed(0)
    np.testing.assert_array_equal(floors.stain_jitter(tissue[0], seed=1), first)
    assert (floors.stain_jitter(tissue[0], seed=2) != first).any()
    assert np.abs(floors.stain_jitter(tissue[0], seed=1, strength=0).astype(int) - tissue[0]).max() <= 1


@pytest.fixture(scope="module")
def real(shared):
    """(images, labels, test, descriptor -> η_p of test_to_train and leave_one_out) of the 24 real slides."""
    root = shared / "histology" / "kimia"
    table = build_table(root, *SET.layout(root, Kimia()))
    labels, test = table["label_id"].to_numpy(), (table["split"] == "test").to_numpy()
    images = [read_rgb(root / path) for path in table["path"]]

    def score(describe):
        embeddings = describe(images)
        return [evaluate(p, embeddings, labels, test).scores.eta_p for p in ("test_to_train", "leave_one_out")]

    return score


def test_known_scores_of_colour_on_real_slides(real):
    assert real(floors.mean_colour) == pytest.approx([64.0, 61.7], abs=1.5)
    assert real(floors.rgb_histogram) == pytest.approx([81.1, 82.9], abs=1.5)


def test_known_scores_of_the_frozen_backbone_on_real_slides(real, shared):
    params = BackboneParams(
        name="mobilenetv2_035",
        pretrained=False,
        options={"pad_type": "same", "bn_eps": 1e-3},
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    backbone = Backbone(params, shared / "weights" / "mobilenetv2_035.safetensors")
    assert real(partial(embed_images, pooled(backbone, 224))) == pytest.approx([93.7, 94.3], abs=1.5)
