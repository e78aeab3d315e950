"""MMCosine: the worked example, invariances, every fusion it takes, the two prediction heads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivox import (
    Attention,
    Balancer,
    Classification,
    Concat,
    Dense,
    FiLM,
    Gated,
    MultiLabel,
    Multimodal,
    Regression,
    Sum,
)
from equivox.functional import supervised_nce
from equivox.methods.objective.mmcosine import MMCosine, least_scale
from equivox.methods.optimization.ogm_ge import OGMGE
from equivox.modules.cosine_fusion import CosineFusion

Z = {
    "audio": torch.tensor([[1.0, 0.5], [-0.5, 1.0]]),
    "video": torch.tensor([[0.2, -0.1], [0.3, 0.4]]),
}
W = torch.tensor([[1, 0, 0.5, 0], [0, 1, 0, 0.5], [-1, -1, 0.2, 0.3]])
Y = torch.tensor([0, 1])
FUSIONS = (Concat, Sum, Gated, FiLM)


def toy(scale: float) -> CosineFusion:
    inner = Concat({"audio": 2, "video": 2}, 3)
    inner.linear.weight.data.copy_(W)
    return CosineFusion(inner, scale)


def bound(
    method: Any, fusion: Any = Concat, count: int = 2, task: Any = None, widths: int = 4
) -> Balancer:
    torch.manual_seed(0)
    net = {f"m{i}": nn.Linear(3, widths) for i in range(count)}
    model = Multimodal(net, fusion(dict.fromkeys(net, widths), 3))
    return Balancer(model, method, task=task or Classification())


def batch(count: int = 2) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = {f"m{i}": torch.randn(6, 3, generator=generator) for i in range(count)}
    return inputs, torch.arange(6) % 3


@pytest.mark.parametrize(("scale", "loss"), [(1.0, 0.335633), (2.0, 0.098243), (10.0, 2.0e-5)])
def test_worked_example(scale: float, loss: float) -> None:
    expected = torch.tensor([[1.788854, 0, -0.824649], [0.152786, 1.694427, 0.682233]])
    logits = toy(scale)(Z)
    torch.testing.assert_close(logits, scale * expected, rtol=1e-5, atol=1e-5)
    assert F.cross_entropy(logits, Y).item() == pytest.approx(loss, abs=5e-6)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_shares_are_bounded_and_add_up(fusion: type, count: int) -> None:
    balancer = bound(MMCosine(scale=5.0), fusion, count)
    output = balancer.model(batch(count)[0])
    shares = list(output.split.values())
    assert all(x.abs().max() <= 5.0001 for x in shares)
    torch.testing.assert_close(torch.stack(shares).sum(0), output.logits)
    assert torch.equal(balancer.predict(batch(count)[0]), output.logits)


def test_lengths_do_not_matter() -> None:
    fusion = toy(3.0)
    before = fusion(Z)
    longer = {"audio": 7 * Z["audio"], "video": 0.1 * Z["video"]}
    fusion.inner.linear.weight.data[0, :2] *= 5
    fusion.inner.linear.weight.data[2, 2:] *= 0.3
    torch.testing.assert_close(fusion(longer), before)


def test_gradients_are_orthogonal_to_the_features() -> None:
    z = {m: x.clone().requires_grad_() for m, x in Z.items()}
    F.cross_entropy(toy(1.0)(z), Y).backward()
    for x in z.values():
        assert x.grad.any()
        torch.testing.assert_close((x * x.grad).sum(1), torch.zeros(2), rtol=0, atol=1e-7)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_bias_gets_no_gradient(fusion: type) -> None:
    balancer = bound(MMCosine(), fusion)
    balancer(*batch()).backward()
    inner = balancer.model.fusion.inner
    layers = list(inner.linears.values()) if fusion is Sum else [inner.linear]
    assert all(layer.bias.grad is None and layer.weight.grad.any() for layer in layers)


def test_a_sum_is_a_concatenation() -> None:
    concat, summed = Concat(dict.fromkeys(Z, 2), 3), Sum(dict.fromkeys(Z, 2), 3)
    for m, weight in concat.weights().items():
        summed.linears[m].weight.data.copy_(weight)
    torch.testing.assert_close(CosineFusion(summed, 4.0)(Z), CosineFusion(concat, 4.0)(Z))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_missing_modality_says_nothing(fusion: type) -> None:
    balancer = bound(MMCosine(), fusion)
    inputs, target = batch()
    there = {"m0": inputs["m0"], "present": {"m1": False}}
    output = balancer.model(there)
    assert list(output.split) == ["m0"]
    if fusion in (Concat, Sum):
        torch.testing.assert_close(output.logits, output.split["m0"])
    balancer(there, target).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in balancer.parameters())


def test_a_blanked_modality_keeps_gradients_finite() -> None:
    balancer = bound(MMCosine())
    inputs, target = batch()
    present = {"m1": torch.tensor([True, False] * 3)}
    balancer({**inputs, "present": present}, target).backward()
    gradients = [p.grad for p in balancer.parameters() if p.grad is not None]
    assert max(g.abs().max() for g in gradients) < 100


def test_the_linear_head_predicts_as_before() -> None:
    plain = bound(None)
    balancer = bound(MMCosine(eval_head="linear"))
    assert torch.equal(balancer.predict(batch()[0]), plain.predict(batch()[0]))
    assert isinstance(balancer.model.fusion, CosineFusion)
    assert balancer.method.overrides("predict")
    assert not MMCosine().overrides("predict")
    assert MMCosine().overrides("losses", "predict")


def test_contrast_is_the_mean_over_pairs() -> None:
    inputs, target = batch(3)
    plain = bound(MMCosine(), count=3)(inputs, target)
    balancer = bound(MMCosine(lam=0.5, temperature=0.2), count=3)
    z = list(balancer.model.encode(inputs).values())
    pairs = [supervised_nce(z[i], z[j], target, 0.2) for i, j in ((0, 1), (0, 2), (1, 2))]
    torch.testing.assert_close(balancer(inputs, target) - plain, 0.5 * sum(pairs) / 3)


def test_contrast_of_a_single_class_is_finite() -> None:
    inputs, target = batch()
    assert bound(MMCosine(lam=1.0))(inputs, torch.zeros_like(target)).isfinite()


def test_multi_label_logits_are_means() -> None:
    inputs, _ = batch()
    labels = bound(MMCosine(scale=4.0), task=MultiLabel()).predict(inputs)
    torch.testing.assert_close(2 * labels, bound(MMCosine(scale=4.0)).predict(inputs))


def test_dense_features_are_normalised_at_every_position() -> None:
    torch.manual_seed(0)
    net = {m: nn.Conv2d(1, 4, 1) for m in "ab"}
    model = Multimodal(net, Concat(dict.fromkeys(net, 4), 3, pool=False))
    balancer = Balancer(model, MMCosine(scale=2.0), task=Dense())
    logits = balancer.model({m: torch.randn(2, 1, 3, 5) for m in net}).logits
    assert logits.shape == (2, 3, 3, 5)
    assert logits.abs().max() <= 4.0001


def test_least_scale_reaches_the_confidence() -> None:
    for modalities in (1, 2, 3):
        s = least_scale(10, modalities, 0.95)
        logits = torch.full((10,), -modalities * s / 9)
        logits[0] = modalities * s
        assert logits.softmax(0)[0].item() == pytest.approx(0.95, abs=1e-5)


def test_chains_with_gradient_modulation() -> None:
    balancer = bound(MMCosine() + OGMGE())
    optimizer = balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.1))
    balancer(*batch()).backward()
    optimizer.step()
    assert all(p.isfinite().all() for p in balancer.parameters())


def test_refuses_what_has_no_split_head() -> None:
    with pytest.raises(ValueError, match="Found `Attention`"):
        bound(MMCosine(), Attention)
    with pytest.raises(ValueError, match="Found `Regression`"):
        bound(MMCosine(), task=Regression(3))
    with pytest.raises(ValueError, match="contrasts classes"):
        bound(MMCosine(lam=1.0), task=MultiLabel())


@pytest.mark.parametrize(
    "bad", [{"scale": 0.0}, {"temperature": -1.0}, {"lam": -1.0}, {"eval_head": "x"}]
)
def test_refuses_bad_arguments(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}` should be"):
        MMCosine(**bad)
