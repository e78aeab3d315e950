"""OPM: the worked example, who is dropped, what stays bit for bit, samples without anything."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivox import Balancer, Batch, Classification, Concat, Joint, Method, Multimodal
from equivox.functional.dropout import dropped, dropped_fraction
from equivox.methods.feedforward.opm import OPM, drop_probabilities

Z = {
    "audio": torch.tensor([[1.0, 0.5], [-0.5, 1.0]]),
    "video": torch.tensor([[0.2, -0.1], [0.3, 0.4]]),
}
SCORES = {"audio": torch.tensor(1.281944), "video": torch.tensor(0.684944)}


class Watched(OPM):
    """Keeps what the fusion was given."""

    def features(self, features: Any, step: Any) -> Any:
        self.given, self.got = features, super().features(features, step)
        return self.got


def bound(method: Method | None, count: int = 2) -> Balancer:
    """A model in which `m0` is dominant, on the labels that it says."""
    torch.manual_seed(0)
    net = {f"m{i}": nn.Linear(3, 4 + i) for i in range(count)}
    model = Multimodal(net, Concat({f"m{i}": 4 + i for i in range(count)}, 3))
    model.fusion.weights()["m0"].data.mul_(6)
    return Balancer(model, method, task=Classification())


def batch(balancer: Balancer, rows: int = 64) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = {m: torch.randn(rows, 3, generator=generator) for m in balancer.model.modalities}
    with torch.no_grad():
        return inputs, balancer.model(inputs).split["m0"].argmax(1)


def zero_rows(method: Watched) -> dict[str, Tensor]:
    return {m: (z == 0).all(1) for m, z in method.got.items()}


def test_worked_example() -> None:
    q = drop_probabilities(SCORES, q_base=0.5, lam=0.5)
    assert q["audio"].item() == pytest.approx(0.675547, abs=1e-5)
    assert q["video"].item() == 0.0
    theta = dropped_fraction(q, {"audio": 2, "video": 2})
    assert theta.item() == pytest.approx(0.337773, abs=1e-5)
    kept = {"audio": torch.tensor([False, True]), "video": torch.tensor([True, True])}
    z = dropped(Z, kept, theta)
    expected = {
        "audio": torch.tensor([[0, 0], [-0.755029, 1.510057]]),
        "video": torch.tensor([[0.302011, -0.151006], [0.453017, 0.604023]]),
    }
    w = torch.tensor([[1, 0, 0.5, 0], [0, 1, 0, 0.5], [-1, -1, 0.2, 0.3]])
    logits = F.linear(torch.cat(list(z.values()), 1), w, torch.tensor([0.1, -0.2, 0.1]))
    for m, rows in expected.items():
        torch.testing.assert_close(z[m], rows, rtol=0, atol=2e-5)
    assert F.cross_entropy(logits, torch.tensor([0, 1])).item() == pytest.approx(0.568712, abs=1e-5)


def test_probabilities_are_zero_or_at_least_the_base() -> None:
    generator = torch.Generator().manual_seed(0)
    for count in (1, 2, 3, 5):
        for _ in range(50):
            rows = torch.rand(count, generator=generator)
            scores = {f"m{i}": x for i, x in enumerate(rows)}
            q = torch.stack(list(drop_probabilities(scores, 0.4, 2.0).values()))
            assert q[rows.argmin()] == 0
            assert (((q == 0) | (q >= 0.4)) & (q <= 1)).all()
            if count == 2:
                assert (q > 0).sum() <= 1


@pytest.mark.parametrize(
    "method", [OPM(p_exe=0.0, warmup=0), OPM(q_base=0.0, warmup=0), OPM(p_exe=1.0)]
)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_neutral_is_joint_training_bit_for_bit(method: OPM, count: int) -> None:
    found = []
    for one in (Joint(), method):
        balancer = bound(one, count)
        loss = balancer(*batch(balancer))
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in balancer.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_random_state_outside_is_untouched() -> None:
    balancer = bound(OPM(warmup=0, p_exe=1.0))
    inputs, target = batch(balancer)
    before = torch.get_rng_state()
    balancer(inputs, target)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("count", [2, 3])
def test_drops_the_dominant_modality_sample_by_sample(count: int) -> None:
    method = Watched(warmup=0, p_exe=1.0)
    balancer = bound(method, count)
    inputs, target = batch(balancer, 512)
    balancer(inputs, target)
    output = balancer.model(inputs)
    scores = {m: Classification().score(o, target).mean() for m, o in output.split.items()}
    q = drop_probabilities(scores, 0.5, 0.5)
    theta = dropped_fraction(q, balancer.model.widths)
    zero = zero_rows(method)
    assert q["m0"] > 0.5
    for m, rows in zero.items():
        assert rows.float().mean().item() == pytest.approx(q[m].item(), abs=0.07)
        kept = method.got[m][~rows]
        torch.testing.assert_close(kept, method.given[m][~rows] / (1 - theta))
    assert not torch.stack(list(zero.values())).all(0).any()
    assert not zero[min(scores, key=lambda m: scores[m].item())].any()


def test_a_batch_is_modulated_as_a_whole_or_not_at_all() -> None:
    method = Watched(warmup=0, p_exe=0.7)
    balancer = bound(method)
    acted = []
    for _ in range(300):
        balancer(*batch(balancer))
        dropped_rows = bool(zero_rows(method)["m0"].any())
        assert dropped_rows != torch.equal(method.got["m1"], method.given["m1"])
        acted.append(dropped_rows)
    assert sum(acted) / 300 == pytest.approx(0.7, abs=0.1)


def test_waits_for_the_warmup() -> None:
    method = Watched(p_exe=1.0)
    balancer = bound(method)
    acted = []
    for epoch in (0, 5, 6):
        balancer.progress.epoch = epoch
        balancer(*batch(balancer))
        acted.append(bool(zero_rows(method)["m0"].any()))
    assert acted == [False, False, True]


def test_delayed_uses_the_probabilities_of_the_batch_before() -> None:
    method = Watched(warmup=0, p_exe=1.0, delayed=True)
    balancer = bound(method)
    acted = []
    for _ in range(2):
        balancer(*batch(balancer))
        acted.append(bool(zero_rows(method)["m0"].any()))
    assert acted == [False, True]
    assert method.before[0] > 0.5
    assert method.before[1] == 0


def test_prediction_is_that_of_the_plain_model() -> None:
    balancer, plain = bound(OPM(warmup=0, p_exe=1.0)), bound(None)
    inputs, target = batch(plain)
    assert torch.equal(balancer.predict(inputs), plain.predict(inputs))
    assert torch.equal(balancer.eval()(inputs, target), plain.eval()(inputs, target))


def test_a_sample_without_any_modality_has_no_weight() -> None:
    method = Watched(warmup=0, p_exe=1.0, q_base=1.0)  # drops `m0` of every sample
    balancer = bound(method)
    inputs, target = batch(balancer, 8)
    keep = torch.ones(8, 2, dtype=torch.bool)
    keep[:3, 1] = False
    inputs = {m: x.requires_grad_() for m, x in inputs.items()}
    balancer.plan(Batch(inputs, target, keep=keep))
    loss = balancer(inputs, target)
    loss.backward()
    alone = balancer.model.fused(method.got).logits
    torch.testing.assert_close(loss, F.cross_entropy(alone[3:], target[3:]))
    assert not inputs["m1"].grad[:3].any()
    assert inputs["m1"].grad[3:].any()


@pytest.mark.parametrize("bad", [{"q_base": 1.5}, {"p_exe": -0.1}, {"lam": -1.0}, {"warmup": -1}])
def test_refuses_bad_arguments(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}`.* should"):
        OPM(**bad)
