"""The head: generalised mean and mini-heads against plain numpy (section 3.4)."""

import numpy as np
import pytest
import torch

from lgffem_core.systems.lgffem import head as pooling
from lgffem_core.systems.lgffem.head import ClosedMean, GeM, GeMHead, MiniHead, generalised_mean


@pytest.fixture(autouse=True)
def random_weights():
    torch.manual_seed(0)


def numpy_gem(x, p, eps=1e-6):
    out = np.empty(x.shape[:2])
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            values = [max(v, eps) ** p for v in x[n, c].ravel()]
            out[n, c] = (sum(values) / len(values)) ** (1 / p)
    return out


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 4.6, 20.0])
def test_generalised_mean_against_numpy(p):
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    np.testing.assert_allclose(generalised_mean(x, p).numpy(), numpy_gem(x.numpy(), p), rtol=1e-9)


def test_p_of_one_is_the_mean_and_a_large_p_the_maximum():
    x = torch.rand(2, 3, 4, 4, dtype=torch.float64) + 0.1
    torch.testing.assert_close(generalised_mean(x, 1.0), x.mean(dim=(2, 3)))
    torch.testing.assert_close(generalised_mean(x, 200.0), x.amax(dim=(2, 3)), rtol=0.02, atol=0)
    means = torch.stack([generalised_mean(x, p) for p in (1.0, 2.0, 4.6, 10.0, 50.0)])
    assert (means.diff(dim=0) > 0).all()


def test_negative_values_count_as_eps():
    assert generalised_mean(-torch.ones(1, 1, 2, 2), 4.6, eps=1e-3).item() == pytest.approx(1e-3, rel=1e-3)


def test_p_is_trained_and_starts_as_given():
    gem = GeM(4.6)
    assert gem.p.item() == pytest.approx(4.6)
    gem(torch.rand(2, 3, 4, 4)).sum().backward()
    assert gem.p.grad.item() > 0  # a larger p, a larger mean


def test_pooling_half_precision_stays_finite():
    x = torch.full((1, 1, 2, 2), 60.0, dtype=torch.float16)  # 60^4.6 is beyond 65504
    pooled = GeM(4.6)(x)
    assert pooled.dtype == torch.float32 and pooled.item() == pytest.approx(60, rel=1e-3)


@pytest.mark.parametrize("p_trained", [True, False])
@pytest.mark.parametrize(("kind", "to_x"), [(torch.bfloat16, 8e-3), (torch.float32, 1e-4)])
def test_pooling_on_a_processor_has_the_derivatives_of_the_definition(monkeypatch, p_trained, kind, to_x):
    """Those that autograd finds in float32, with clipped values among them, for maps of either layout."""
    monkeypatch.setattr(pooling, "at_a_time", lambda x: 2)  # of three images: the last by itself
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(3, 4, 5, 6).to(kind).contiguous(memory_format=layout)
        kept, answers = x.clone(), []
        for pool, given in ((generalised_mean, x.float()), (ClosedMean.apply, x)):
            given, p = given.detach().requires_grad_(), torch.tensor([4.6]).requires_grad_(p_trained)
            pooled = pool(given, p, 1e-6)
            (pooled * torch.linspace(-1, 2, 12).reshape(3, 4)).sum().backward()
            answers.append((pooled.detach(), given.grad.float(), *([p.grad] if p_trained else [])))
        for theirs, ours, tolerance in zip(*answers, (1e-5, to_x, 1e-4), strict=False):
            torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=1e-7)
        assert (answers[1][1][x < 1e-6] == 0).all() and torch.equal(x, kept)


def numpy_mini_head(head, x):
    w = {name: tensor.detach().numpy() for name, tensor in head.state_dict().items()}
    pooled = numpy_gem(x, float(w["gem.p"][0]))
    if "norm.0.weight" in w:
        pooled = (pooled - w["norm.0.running_mean"]) / np.sqrt(w["norm.0.running_var"] + 1e-5)
        pooled = pooled * w["norm.0.weight"] + w["norm.0.bias"]
    hidden = pooled @ w["fc_in.weight"].T + w["fc_in.bias"]
    unit = hidden / np.sqrt((hidden**2).sum(axis=1, keepdims=True))
    return unit @ w["fc_out.weight"].T + w["fc_out.bias"]


@pytest.mark.parametrize("norm", [False, True])
def test_a_mini_head_is_equation_7(norm):
    head = MiniHead(5, p=4.6, eps=1e-6, norm=norm, dropout=0.6).double().eval()
    if norm:  # statistics that are not those of the start
        batch_norm = head.norm[0]
        for tensor in (batch_norm.weight.data, batch_norm.bias.data, batch_norm.running_mean):
            tensor.copy_(torch.randn(5))
        batch_norm.running_var.copy_(torch.rand(5) + 0.5)
    x = torch.rand(3, 5, 4, 4, dtype=torch.float64)
    # GeM works in float32 whatever its input
    np.testing.assert_allclose(head.float()(x.float()).detach().numpy(), numpy_mini_head(head, x.numpy()), atol=1e-5)


def test_dropout_and_batch_norm_only_where_the_variant_has_them():
    nodes = [torch.rand(4, 6, 3, 3) for _ in range(4)]
    for norm in (False, True):
        head = GeMHead(6, norm=norm)
        names = {type(module).__name__ for module in head.modules()}
        assert ({"BatchNorm1d", "Dropout"} <= names) == norm and ("BatchNorm1d" in names) == norm
        head.train()
        assert torch.equal(head(nodes), head(nodes)) != norm
        head.eval()
        assert torch.equal(head(nodes), head(nodes))


def test_the_dropout_rate_is_the_one_asked_for():
    assert [head.norm[1].p for head in GeMHead(4, norm=True, dropout=0.25).mini_heads] == [0.25] * 4


def test_the_embedding_is_the_four_mini_heads_side_by_side():
    head = GeMHead(6).eval()
    nodes = [torch.rand(2, 6, 16 >> i, 16 >> i) for i in range(4)]
    embedding = head(nodes)
    assert embedding.shape == (2, 24)
    for i in range(4):
        assert torch.equal(embedding[:, 6 * i : 6 * (i + 1)], head.mini_heads[i](nodes[i]))


def test_three_nodes_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        GeMHead(4)([torch.rand(1, 4, 2, 2)] * 3)
