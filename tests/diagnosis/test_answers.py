from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equivox.balancer import Balancer
from equivox.diagnosis.answers import BLANKINGS, ORDERS, Answers, gather
from equivox.diagnosis.exchange import lenders
from equivox.fusion import Concat
from equivox.model import Multimodal
from equivox.task import Classification, Task

NAMES = ("a", "b", "c")


class CountingEncoder(nn.Linear):
    """Counts how often it runs."""

    runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return super().forward(x)


class CountingFusion(Concat):
    """Counts how often it runs."""

    runs = 0

    def forward(self, features: Any) -> Tensor:
        self.runs += 1
        return super().forward(features)


def network(count: int = 2, task: Task | None = None) -> Balancer:
    torch.manual_seed(0)
    encoders = {m: CountingEncoder(3, 4) for m in NAMES[:count]}
    fusion = CountingFusion(dict.fromkeys(encoders, 4), 2)
    return Balancer(Multimodal(encoders, fusion), task=task or Classification(2))


def batches(count: int = 2, samples: int = 20, size: int = 8, index: bool = True) -> list[Any]:
    g = torch.Generator().manual_seed(1)
    inputs = {m: torch.randn(samples, 3, generator=g) for m in NAMES[:count]}
    target = torch.randint(2, (samples,), generator=g)
    order = torch.randperm(samples, generator=g) if index else torch.arange(samples)
    items = []
    for rows in order.split(size):
        item = ({m: x[rows] for m, x in inputs.items()}, target[rows])
        items.append((*item, rows) if index else item)
    return items


@pytest.mark.parametrize("count", [2, 3])
def test_encoders_run_once_and_the_fusion_once_a_subset(count: int) -> None:
    balancer, loader = network(count), batches(count)
    gather(balancer, loader)
    for m in balancer.model.modalities:
        assert balancer.model.encoders[m].runs == len(loader)
    fewer = 2**count - 1
    assert balancer.model.fusion.runs == len(loader) * (1 + fewer * len(BLANKINGS))


def test_every_subset_is_what_the_network_says_with_the_others_blanked() -> None:
    balancer, loader = network(), batches()
    found = gather(balancer, loader)
    inputs = {m: torch.cat([item[0][m] for item in loader]) for m in found.modalities}
    order = torch.cat([item[2] for item in loader]).argsort()
    features = {m: z[order] for m, z in balancer.model.encode(inputs).items()}
    assert torch.equal(found.index, torch.arange(20))
    torch.testing.assert_close(found.whole, balancer.model.fused(features).logits)
    torch.testing.assert_close(found.without("a"), balancer.model.fuse(features, {"b"}))
    torch.testing.assert_close(found.only("a"), balancer.model.fuse(features, {"a"}))
    for how in BLANKINGS:
        assert torch.equal(found.logits[how][frozenset("ab")], found.whole)
    none = found.logits["zero"][frozenset()]
    torch.testing.assert_close(none, none[:1].expand_as(none))
    assert torch.equal(found.features["a"], features["a"])
    torch.testing.assert_close(sum(found.shares.values()), found.whole)


def test_mean_and_shuffle_are_of_the_whole_loader() -> None:
    balancer, loader = network(), batches()
    found = gather(balancer, loader)
    inputs = {m: torch.cat([item[0][m] for item in loader]) for m in found.modalities}
    target, index = (torch.cat([item[i] for item in loader]) for i in (1, 2))
    features = balancer.model.encode({m: x[index.argsort()] for m, x in inputs.items()})
    mean = features | {"a": features["a"].mean(0).expand(20, -1)}
    torch.testing.assert_close(found.without("a", "mean"), balancer.model.fused(mean).logits)
    assert found.ring is not None
    lender = lenders(found.ring)
    assert (lender // 8 != torch.arange(20) // 8).any()
    lent = features | {"a": features["a"][lender]}
    torch.testing.assert_close(found.without("a", "shuffle"), balancer.model.fused(lent).logits)
    target = target[index.argsort()]
    assert torch.equal(found.unlike, target != target[lender])


def test_a_loader_in_the_order_of_the_classes_is_like_a_mixed_one() -> None:
    balancer, loader = network(), batches(samples=200)
    inputs = {m: torch.cat([item[0][m] for item in loader]) for m in balancer.model.modalities}
    target, index = (torch.cat([item[i] for item in loader]) for i in (1, 2))
    order = target.argsort(stable=True).split(8)
    mixed = gather(balancer, loader)
    by_class = [({m: x[o] for m, x in inputs.items()}, target[o], index[o]) for o in order]
    found = gather(balancer, by_class)
    for subset, logits in mixed.logits["mean"].items():
        torch.testing.assert_close(found.logits["mean"][subset], logits)
    assert 70 < int(found.unlike.sum()) < 130


@pytest.mark.parametrize("size", [1, 3, 20])
def test_the_size_of_batches_does_not_matter(size: int) -> None:
    one, other = (gather(network(), batches(size=x, index=False)) for x in (size, 8))
    assert torch.equal(one.unlike, other.unlike)
    for how in BLANKINGS:
        torch.testing.assert_close(one.without("a", how), other.without("a", how))


def test_what_is_too_large_for_memory_is_in_files_for_the_while(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted = gather(network(), batches())
    monkeypatch.setattr("equivox.diagnosis.exchange.MEMORY", 100)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    files = []
    balancer = network()
    balancer.model.fusion.register_forward_hook(
        lambda *_: files.append(len([*tmp_path.rglob("*")]))
    )
    found = gather(balancer, batches())
    assert max(files) > 1 and not any(tmp_path.iterdir())
    for how in BLANKINGS:
        assert torch.equal(found.without("a", how), wanted.without("a", how))


def test_what_is_not_finite_is_in_no_mean() -> None:
    loader = batches(index=False)
    wanted = gather(network(), [loader[1], loader[2]]).without("a", "mean")
    loader[0][0]["a"].fill_(torch.nan)
    torch.testing.assert_close(gather(network(), loader).without("a", "mean")[8:], wanted)


def test_rows_are_chosen_in_every_part() -> None:
    found = gather(network(), batches())
    some = found.rows(torch.tensor([3, 5]))
    assert isinstance(some, Answers) and some.index.tolist() == [3, 5]
    assert torch.equal(some.without("b", "mean"), found.without("b", "mean")[[3, 5]])


def test_what_is_not_finite_is_flagged() -> None:
    loader = batches(index=False)
    loader[0][0]["a"][2, 1] = torch.nan
    found = gather(network(), loader)
    assert (~found.finite["a"]).nonzero().flatten().tolist() == [2]
    assert found.finite["b"].all()


def test_the_subject_is_untouched() -> None:
    balancer, state = network(), torch.get_rng_state()
    balancer.model.fusion.eval()
    before = {name: x.clone() for name, x in balancer.model.state_dict().items()}
    gather(balancer, batches())
    assert all(torch.equal(before[name], x) for name, x in balancer.model.state_dict().items())
    assert balancer.training and not balancer.model.fusion.training
    assert torch.equal(state, torch.get_rng_state())


def without_b(item: Any) -> Any:
    return ({"a": item[0]["a"], "present": {"b": False}}, *item[1:])


def renumbered(item: Any) -> Any:
    return (*item[:2], torch.arange(len(item[1])))


@pytest.mark.parametrize(
    ("loader", "found"),
    [
        ([], "an empty loader"),
        ([without_b(item) for item in batches()], "Found no `b`"),
        ([renumbered(item) for item in batches()], "Found 8 numbers for 20 samples"),
    ],
)
def test_refused(loader: list[Any], found: str) -> None:
    with pytest.raises(ValueError, match=found):
        gather(network(), loader)


def many(count: int) -> tuple[Balancer, list[Any]]:
    """A network of modalities of which the first ones say most."""
    torch.manual_seed(0)
    names = [f"m{i}" for i in range(count)]
    encoders = {m: CountingEncoder(2, 2) for m in names}
    fusion = CountingFusion(dict.fromkeys(names, 2), 2)
    target = torch.arange(60) % 2
    signs = nn.functional.one_hot(target, 2).float()
    inputs = {m: 2 * signs / (i + 1) + torch.randn(60, 2) for i, m in enumerate(names)}
    with torch.no_grad():
        for encoder in encoders.values():
            encoder.weight.copy_(torch.eye(2))
        (linear,) = [x for x in fusion.modules() if isinstance(x, nn.Linear)]
        linear.weight.copy_(torch.eye(2).repeat(1, count))
    return Balancer(Multimodal(encoders, fusion), task=Classification(2)), [(inputs, target)]


def test_of_many_modalities_only_the_subsets_that_are_met_are_fused() -> None:
    balancer, loader = many(10)
    found = gather(balancer, loader, blankings=("zero",))
    names = frozenset(found.modalities)
    wanted = {frozenset(o[:k]) for o in found.orders for k in range(11)}
    wanted |= {frozenset({m}) for m in names} | {names - {m} for m in names}
    assert set(found.logits["zero"]) == wanted and len(wanted) < 2**10 / 2
    assert len(found.orders) == ORDERS and all(set(order) == names for order in found.orders)
    assert balancer.model.fusion.runs == len(wanted)
    assert all(encoder.runs == 1 for encoder in balancer.model.encoders.values())
    assert torch.equal(found.whole, balancer.model(loader[0][0]).logits)
    assert found.orders == gather(balancer, loader).orders != gather(balancer, loader, 1).orders


def test_up_to_eight_all_subsets_are_looked_at() -> None:
    balancer, loader = many(8)
    found = gather(balancer, loader, blankings=("zero",))
    assert len(found.logits["zero"]) == 2**8 and found.orders == ()


def test_modalities_that_are_not_looked_at_stay_as_they_are() -> None:
    balancer, loader = many(3)
    found = gather(balancer, loader, modalities=["m0", "m2"])
    assert found.modalities == ("m0", "m2") and len(found.logits["zero"]) == 4
    features = balancer.model.encode(loader[0][0])
    torch.testing.assert_close(found.only("m0"), balancer.model.fuse(features, {"m0", "m1"}))
    torch.testing.assert_close(found.whole, balancer.model.fused(features).logits)
