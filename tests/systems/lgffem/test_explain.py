"""Grad-CAM++ against the formula written out, a model whose answer is known, and the arithmetic of the checks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binom, rankdata
from torch import nn

from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.data.synthetic.make import STROMA
from lgffem_core.systems.lgffem import explain, sanity
from lgffem_core.systems.lgffem.model import build_model
from lgffem_core.systems.lgffem.neck import OUTPUTS

SIDE = 64
SMALL = {
    "model.backbone.name": "test_convnext", "model.backbone.pretrained": False, "model.backbone.weights": None,
    "model.neck.channels": 8, "model.neck.layers": 2, "model.image_size": SIDE,
}  # fmt: skip


@pytest.fixture(scope="module")
def study():
    return Study.load(PROJECT / "params" / "demo.yaml", SMALL)


@pytest.fixture(scope="module")
def model(study):
    return build_model(study, "paper", 0).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def references(model, images):
    return explain.embed(model, images.flip(0) + 0.3)


class Colours(nn.Module):
    """A model whose answer is known: its embedding is how red, how green and how blue an image is."""

    def __init__(self):
        super().__init__()
        self.neck = nn.Module()
        self.neck.layers = nn.ModuleList([nn.Module()])
        self.neck.layers[0].nodes = nn.ModuleDict({name: nn.Conv2d(3, 3, 1, bias=False) for name in OUTPUTS})
        for node in self.neck.layers[0].nodes.values():
            nn.init.dirac_(node.weight)

    def forward(self, images):
        for node in self.neck.layers[0].nodes.values():
            images = node(images)
        return images.mean(dim=(2, 3))


# -- maps ------------------------------------------------------------------------------------------------


def written_out(model, node, image, reference):
    """One image's map by autograd and loops over channels, from the formula alone."""
    kept = []
    handle = node.register_forward_hook(lambda module, inputs, output: kept.append(output))
    score = F.cosine_similarity(model(image[None]), reference[None]).sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    total = np.zeros(kept[0].shape[2:])
    for A, g in zip(kept[0][0].detach().double().numpy(), gradient[0].double().numpy(), strict=True):
        weight = 0.0
        for slope in g.ravel():
            if slope > 0:
                weight += slope**2 / (2 * slope**2 + A.sum() * slope**3) * slope
        total += weight * A
    total = np.maximum(total, 0)
    scaled = (total - total.min()) / max(total.max() - total.min(), 1e-300)
    return F.interpolate(torch.tensor(scaled)[None, None], (SIDE, SIDE), mode="bilinear", align_corners=False)[0, 0]


def test_maps_are_those_of_the_formula(model, images, references):
    maps = explain.similarity_maps(model, images, references, batch_size=2)
    assert list(maps) == [(layer, name) for layer in (1, 2) for name in OUTPUTS]
    warm = 0
    for (layer, name), found in maps.items():
        node = model.neck.layers[layer - 1].nodes[name]
        expected = [written_out(model, node, *pair) for pair in zip(images, references, strict=True)]
        np.testing.assert_allclose(found, np.stack(expected), atol=1e-5, err_msg=f"{layer} {name}")
        warm += sum(values.max() > 0.9 for values in found)
    assert warm >= 12  # most maps are not empty, so the comparison says something


def test_gradients_below_the_packages_epsilon_still_count():
    """g = 1e-6, where g² is 1e-12: α is 1/2 and a weight is half the sum of the positive gradients."""
    gradients = np.full((1, 1, 2, 2), 1e-6, np.float32)
    gradients[0, 0, 0, 0] = -1e-6
    weights = explain.plus_plus_weights(np.ones_like(gradients), gradients)
    np.testing.assert_allclose(weights, [[1.5e-6]], rtol=1e-5)


def test_alpha_without_a_meaning_counts_as_zero():
    activations = np.full((1, 1, 1, 2), -3.0)  # the sum is -6, so 2 + ΣA·g is -4 for g = 1 and 1.4 for g = 0.1
    weights = explain.plus_plus_weights(activations, np.array([[[[1.0, 0.1]]]]))
    np.testing.assert_allclose(weights, [[0.1 / 1.4]])


@pytest.mark.parametrize(("reference", "region"), [((1, 0, 0), "red"), ((0, 1, 0), "green")])
def test_the_map_of_a_model_that_sees_colours_is_hottest_where_the_references_colour_is(reference, region):
    """The same image with a red and a green square gives another answer to another question."""
    places = {"red": (slice(8, 20), slice(40, 56)), "green": (slice(40, 60), slice(4, 20))}
    image = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) / 10
    image[(0, 0, *places["red"])] += 1
    image[(0, 1, *places["green"])] += 2
    maps = explain.similarity_maps(Colours(), image, torch.tensor(reference, dtype=torch.float32))
    rows, columns = places[region]
    assert set(maps) == {(1, name) for name in OUTPUTS}
    for values in maps.values():
        row, column = np.unravel_index(values[0].argmax(), values[0].shape)
        assert rows.start <= row < rows.stop and columns.start <= column < columns.stop


def test_a_patch_cannot_be_explained_by_itself(model, images):
    maps = explain.similarity_maps(model, images, 3 * explain.embed(model, images))
    assert all(values.shape == (3, SIDE, SIDE) and not values.any() for values in maps.values())


def test_only_the_image_that_is_its_own_reference_is_left_without_a_map(model, images, references):
    mixed = references.clone()
    mixed[1] = explain.embed(model, images)[1]
    alone, together = (explain.similarity_maps(model, images, r)[2, "P1_2"] for r in (references, mixed))
    np.testing.assert_array_equal(together[[0, 2]], alone[[0, 2]])
    assert alone[1].any() and not together[1].any()


def test_one_reference_serves_all_images(model, images, references):
    one = explain.similarity_maps(model, images, references[0])
    each = explain.similarity_maps(model, images, references[:1].repeat(3, 1))
    assert all(np.array_equal(one[node], each[node]) for node in one)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_another_number_of_references_than_images_is_refused(model, images, references, count):
    with pytest.raises(ValueError, match=f"3 images and {count} references"):
        explain.similarity_maps(model, images, references[[0] * count])


def test_the_model_is_left_as_it_was(study, images, references):
    model = build_model(study, "released", 0).train()
    first, second = list(model.neck.parameters())[:2]
    first.grad, second.grad = torch.ones_like(first), None
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    with torch.no_grad():  # the caller's setting does not matter
        explain.similarity_maps(model, images, references)
    assert torch.equal(first.grad, torch.ones_like(first)) and second.grad is None
    assert [module.training for module in model.modules()] == modes and True in modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_model_without_gradients_is_refused(study, images, references):
    model = build_model(study, "paper", 0).requires_grad_(False)
    with pytest.raises(ValueError, match="no gradient reaches the nodes"):
        explain.similarity_maps(model, images, references)
    assert not any(module._forward_hooks for module in model.modules())


def test_collapse_is_the_mean_of_a_layers_four_nodes():
    rng = np.random.default_rng(0)
    maps = {(layer, name): rng.random((2, 4, 4)) for layer in (1, 2) for name in OUTPUTS}
    for layer, found in explain.collapse(maps).items():
        nodes = [maps[layer, name] for name in OUTPUTS]
        np.testing.assert_allclose(found, (nodes[0] + nodes[1] + nodes[2] + nodes[3]) / 4)


# -- check 1 -----------------------------------------------------------------------------------------------


def test_rank_correlation_is_pearsons_of_the_ranks_of_cells():
    rng = np.random.default_rng(0)
    maps, others = rng.random((2, 8, 12)), rng.random((2, 8, 12))
    maps, others = (np.tile(values, (1, 2, 1))[:, :12] for values in (maps, others))  # (2, 12, 12)
    for found, one, other in zip(sanity.rank_correlation(maps, others), maps, others, strict=True):
        ranks = []
        for values in (one, other):
            means = [values[r : r + 4, c : c + 4].mean() for r in (0, 4, 8) for c in (0, 4, 8)]
            ranks.append(rankdata(means))
        assert found == pytest.approx(np.corrcoef(ranks)[0, 1])


def test_a_constant_map_has_no_rank_correlation_and_is_not_counted():
    maps = np.random.default_rng(0).random((3, 8, 8))
    others = maps.copy()
    others[1] = 0
    found = sanity.rank_correlation(maps, others)
    assert np.isnan(found).tolist() == [False, True, False]
    assert sanity.describe(found) == pytest.approx({"mean": 1, "low": 1, "high": 1, "images": 2})
    assert sanity.describe(np.array([np.nan])) == {"mean": None, "low": None, "high": None, "images": 0}


def test_the_range_leaves_out_a_fortieth_at_each_end():
    found = sanity.describe(np.linspace(-1, 1, 41))
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((0, -0.95, 0.95))


def test_a_randomised_model_keeps_the_backbone_and_nothing_else(study, model):
    state = torch.random.get_rng_state()
    zero, again, one = (sanity.randomised(model, study, "paper", draw) for draw in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert zero.backbone is model.backbone and not zero.training
    matrices = [name for name, value in model.trainable_state().items() if value.ndim == 4 and value.numel() > 1]
    same = [model.trainable_state()[n].equal(zero.trainable_state()[n]) for n in matrices]
    assert not any(same) and len(same) > 10
    assert all(value.equal(again.trainable_state()[name]) for name, value in zero.trainable_state().items())
    assert not zero.trainable_state()[matrices[0]].equal(one.trainable_state()[matrices[0]])


def test_the_cascade_goes_from_the_output_inwards_and_ends_at_the_random_model(study, model):
    fresh = sanity.randomised(model, study, "paper", 0)
    kept = {name: value.clone() for name, value in model.trainable_state().items()}
    new, steps = fresh.trainable_state(), {}
    redrawn = [name for name in kept if not kept[name].equal(new[name])]
    for name, mixed in sanity.cascade(model, fresh):
        state = mixed.trainable_state()
        steps[name] = {n for n in redrawn if state[n].equal(new[n])}
        assert all(state[n].equal(kept[n]) for n in set(redrawn) - steps[name])
    prefixes = ["head.", "neck.layers.1.", "neck.layers.0.", "neck.lateral."]
    assert list(steps) == ["head", "layer 2", "layer 1", "lateral"]
    for i, found in enumerate(steps.values()):
        assert found == {n for n in redrawn if n.startswith(tuple(prefixes[: i + 1]))}
    assert all(value.equal(fresh.trainable_state()[name]) for name, value in mixed.trainable_state().items())
    assert all(value.equal(kept[name]) for name, value in model.trainable_state().items())


# -- check 2 -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planted():
    return sanity.planted_patches(SIDE, 24, seed=0)


def test_a_patch_differs_from_plain_stroma_inside_its_mask_and_nowhere_else(planted):
    differs = (planted.images != planted.plain).any(axis=3)
    assert not (differs & ~planted.masks).any()
    assert (differs & planted.masks).sum() / planted.masks.sum() > 0.9  # but for the thinnest rim


def test_the_structure_is_darker_than_stroma_as_crowded_nuclei_are(planted):
    assert planted.images[planted.masks].mean() < planted.images[~planted.masks].mean() - 10
    assert planted.structure.mean() < planted.stroma.mean() - 10
    assert sanity.STRUCTURE.nuclei > 4 * STROMA.nuclei


def test_masks_are_disks_of_one_area_that_wrap_around(planted):
    areas = planted.masks.sum(axis=(1, 2))
    assert len(set(areas.tolist())) == 1
    assert areas[0] == pytest.approx(np.pi * (sanity.RADIUS * SIDE) ** 2, rel=0.02)
    edges = planted.masks[:, 0].any(axis=1) & planted.masks[:, -1].any(axis=1)
    assert edges.any() and not edges.all()


def test_planted_patches_follow_from_their_seed(planted):
    again, other = sanity.planted_patches(SIDE, 24, seed=0), sanity.planted_patches(SIDE, 24, seed=1)
    assert all(np.array_equal(one, two) for one, two in zip(planted, again, strict=True))
    assert not np.array_equal(planted.masks, other.masks)


def test_the_hottest_point_is_the_middle_of_a_plateau():
    values = np.zeros((2, 9, 9))
    values[0, 3, 5] = 1
    values[1, :3, 6:] = 0.5
    np.testing.assert_array_equal(sanity.hottest_points(values), [[3, 5], [1, 7]])


def test_hits_by_an_explicit_loop(planted):
    maps = np.random.default_rng(0).random(planted.masks.shape)
    maps[:10] += planted.masks[:10]
    found = 0
    for heat, mask in zip(maps, planted.masks, strict=True):
        row, column = divmod(int(heat.argmax()), SIDE)
        found += bool(mask[row, column])
    hits = sanity.hits(maps, planted.masks)
    assert (hits.found, hits.patches, hits.chance) == (found, 24, pytest.approx(planted.masks.mean()))
    assert 10 <= found < 24
    tail = sum(binom.pmf(k, 24, hits.chance) for k in range(found, 25))
    assert hits.p_value == pytest.approx(tail)


def test_a_map_without_heat_misses_whatever_lies_in_its_middle():
    masks = np.ones((3, 9, 9), bool)
    masks[:, 0] = False
    maps = np.zeros((3, 9, 9))
    maps[0, 4, 4] = 1
    assert sanity.hits(maps, masks).found == 1
