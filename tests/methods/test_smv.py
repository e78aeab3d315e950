from __future__ import annotations

import copy
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import equivox as ev
from equivox.data import Samples
from equivox.data.planned import batches_of_rank, planned_loader
from equivox.functional.resampling import copies_of, extended, resampling_share, valuation
from equivox.methods.data.smv import SMV

# Whether audio, video and both are right: the values of audio and video, and the copies of each.
CASES = {
    (1, 1, 1): ((1, 1), (0, 0)),
    (1, 0, 1): ((1.5, 0.5), (0, 1)),
    (0, 1, 1): ((0.5, 1.5), (1, 0)),
    (0, 0, 1): ((1, 1), (0, 0)),
    (1, 1, 0): ((0, 0), (2, 2)),
    (1, 0, 0): ((0.5, -0.5), (1, 3)),
    (0, 1, 0): ((-0.5, 0.5), (3, 1)),
    (0, 0, 0): ((0, 0), (2, 2)),
}


@pytest.mark.parametrize(("right", "expected"), CASES.items())
@pytest.mark.parametrize("rule", ["table", "linear"])
def test_values_and_copies_by_hand(right: tuple, expected: tuple, rule: str) -> None:
    subsets = (frozenset("a"), frozenset("v"), frozenset("av"))
    values = {s: torch.tensor([float(x)]) for s, x in zip(subsets, right, strict=True)}
    phi = valuation(values, ["a", "v"])
    assert tuple(x.item() for x in phi.values()) == expected[0]
    assert tuple(copies_of(x, rule).item() for x in phi.values()) == expected[1]


def test_values_of_three_modalities_add_up_and_rounding_makes_no_copies() -> None:
    subsets = [frozenset(s) for s in ("a", "b", "c", "ab", "ac", "bc", "abc")]
    for right in product([0.0, 1.0], repeat=7):
        values = {s: torch.tensor([x]) for s, x in zip(subsets, right, strict=True)}
        phi = torch.cat(list(valuation(values, "abc").values()))
        assert phi.sum().item() == pytest.approx(3 * right[-1], abs=1e-5)
    assert copies_of(torch.tensor([1 - 1e-7, 5 / 6, 1 / 3])).tolist() == [0, 1, 2]
    assert copies_of(torch.tensor([1 - 1e-7, 5 / 6, 1 / 3]), "linear").tolist() == [0, 0, 1]


@pytest.mark.parametrize(("gain", "copies"), [("linear", 100), ("tanh", 96), ("square", 57)])
def test_share_by_hand(gain: str, copies: int) -> None:
    target, p = resampling_share({"a": 0.9, "v": 0.4}, gain=gain)
    assert (target, int(p * 300 + 1e-9)) == ("v", copies)


def test_share_of_other_gaps() -> None:
    assert int(resampling_share({"a": 1.2, "v": 0.3})[1] * 97) == 58
    assert resampling_share({"a": 0.5, "v": 0.5})[1] == 0
    assert resampling_share({"a": 0.5, "b": 0.9, "c": 0.7})[0] == "a"
    assert resampling_share({"a": 0.5, "b": 0.9, "c": 0.7})[1] == pytest.approx(2 / 3 * 0.3)


def test_copies_keep_one_modality() -> None:
    rows, keep = extended(torch.tensor([[2, 0], [0, 1]]))
    assert rows.tolist() == [0, 1, 0, 0, 1]
    assert keep.int().tolist() == [[1, 1], [1, 1], [1, 0], [1, 0], [0, 1]]


def samples(count: int = 3) -> Samples:
    torch.manual_seed(3)
    return Samples({m: torch.randn(22, 3) for m in "abc"[:count]}, torch.arange(22) % 3)


def loader(count: int = 3, **options: Any) -> DataLoader[Any]:
    settings = {"batch_size": 4, "shuffle": True, "collate_fn": Samples.collate}
    return DataLoader(samples(count), **settings | options)


def balanced(method: ev.Method, count: int = 3) -> tuple[ev.Balancer, torch.optim.Optimizer]:
    torch.manual_seed(0)
    nets = {m: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.2)) for m in "abc"[:count]}
    model = ev.Multimodal(nets, ev.Concat(dict.fromkeys(nets, 4), 3))
    balancer = ev.Balancer(model, method, task=ev.Classification())
    return balancer, balancer.attach(torch.optim.SGD(balancer.parameters(), 0.1, momentum=0.9))


def train(
    balancer: ev.Balancer, optimizer: Any, data: Any, saved: dict[int, Any] | None = None
) -> list[Tensor]:
    """One epoch of updates of two forwards; the sample numbers of its batches.

    Where `saved` has the number of a forward, it gets the states after it.
    """
    seen = []
    for number, items in enumerate(balancer.epoch(data), start=1):
        seen.append(items[2])
        (balancer(*items) / 2).backward()
        if number % 2 == 0:
            optimizer.step()
            optimizer.zero_grad()
        if saved and number in saved:
            saved[number] = copy.deepcopy((balancer.state_dict(), optimizer.state_dict()))
    return seen


def test_the_warm_up_is_joint_training() -> None:
    runs = []
    for method in (ev.Joint(), SMV(warmup=2)):
        balancer, optimizer = balanced(method)
        torch.manual_seed(5)
        data = loader()
        seen = torch.cat([*train(balancer, optimizer, data), *train(balancer, optimizer, data)])
        runs.append([seen, *balancer.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("variant", ["sample", "modality"])
@pytest.mark.parametrize("count", [2, 3])
def test_an_epoch_holds_every_sample_and_its_copies(variant: str, count: int) -> None:
    balancer, optimizer = balanced(SMV(warmup=0, variant=variant, part_ratio=1.0), count)
    seen = torch.cat(train(balancer, optimizer, loader(count, drop_last=False)))
    expected = 1 + balancer.method.counts.sum(1)
    assert torch.equal(seen.bincount(minlength=22), expected)
    if variant == "modality":
        assert (balancer.method.counts.sum(0) > 0).sum() <= 1


def test_what_the_model_knows_well_is_not_copied() -> None:
    class Certain(ev.Classification):
        def correct(self, logits: Tensor, target: Tensor) -> Tensor:
            return torch.ones(len(logits))

    balancer, optimizer = balanced(SMV(warmup=0))
    balancer.task = Certain()
    seen = train(balancer, optimizer, loader(shuffle=False))
    assert torch.equal(torch.cat(seen), torch.arange(22))
    assert not balancer.method.counts.any()


def test_a_copy_is_the_forward_with_the_others_blanked() -> None:
    balancer, _ = balanced(SMV())
    balancer.model.eval()
    inputs, target, index = next(iter(loader()))
    keep = torch.ones(4, 3, dtype=torch.bool)
    keep[1] = torch.tensor([False, True, False])
    balancer.plan(ev.Batch(inputs, target, index, keep=keep))
    x = {m: part.clone().requires_grad_() for m, part in inputs.items()}
    loss = balancer(x, target)
    loss.backward()
    assert x["a"].grad[1].eq(0).all()
    assert x["b"].grad[1].ne(0).any()
    assert x["a"].grad[0].ne(0).any()
    features = balancer.model.encode(inputs)
    alone = balancer.model.fuse({m: z[1:2] for m, z in features.items()}, keep={"b"})
    logits = balancer.model.fused(features).logits
    logits = torch.cat([logits[:1], alone, logits[2:]])
    torch.testing.assert_close(loss, balancer.task.loss(logits, target))


@pytest.mark.parametrize("variant", ["sample", "modality"])
@pytest.mark.parametrize("cut_at", [2, 4, 6])
@pytest.mark.parametrize("own", [True, False])
def test_it_resumes_in_the_middle_of_an_epoch(variant: str, cut_at: int, own: bool) -> None:
    def new() -> tuple[Any, ...]:
        torch.manual_seed(9)
        generator = torch.Generator().manual_seed(4) if own else None
        data = loader(generator=generator, drop_last=True)
        return *balanced(SMV(warmup=1, variant=variant, part_ratio=1.0)), data

    straight, optimizer, data = new()
    for _ in range(3):
        train(straight, optimizer, data)
        optimizer.zero_grad()
    cut, optimizer, data = new()
    train(cut, optimizer, data)
    optimizer.zero_grad()
    saved: dict[int, Any] = {cut_at: None}
    train(cut, optimizer, data, saved)
    again, fresh, data = new()
    again.load_state_dict(saved[cut_at][0])
    fresh.load_state_dict(saved[cut_at][1])
    for _ in range(2):
        train(again, fresh, data)
        fresh.zero_grad()
    pairs = zip(straight.model.parameters(), again.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [23, 24, 25])
@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_cut_the_batches_of_one_process(
    ranks: int, rows: int, drop_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from equivox.data import planned

    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    whole = batches_of_rank(order, 2 * ranks, drop_last)
    monkeypatch.setattr(planned, "world", lambda: ranks)
    each = []
    for number in range(ranks):
        monkeypatch.setattr(planned, "rank", lambda number=number: number)
        each.append(batches_of_rank(order, 2, drop_last))
    assert len({tuple(len(part) for part in parts) for parts in each}) == 1
    for batch, *parts in zip(whole, *each, strict=True):
        together = torch.cat(parts)
        assert together[: len(batch)].tolist() == batch.tolist()
        assert together[len(batch) :].tolist() == [-1] * (len(together) - len(batch))
        assert len(together) < len(batch) + ranks


def test_a_row_that_keeps_nothing_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from equivox.methods.data import smv

    balancer, _ = balanced(SMV())
    balancer.model.eval()
    monkeypatch.setattr(smv, "world", lambda: 2)
    inputs, target, index = next(iter(loader()))
    keep = torch.tensor([[True, True, True]] * 3 + [[False, False, False]])
    balancer.plan(ev.Batch(inputs, target, index, keep=keep))
    found = balancer(inputs, target)
    counted = balancer.model({m: x[:3] for m, x in inputs.items()}).logits
    torch.testing.assert_close(found, balancer.task.loss(counted, target[:3]))


def test_numbers_of_the_data_set_need_not_be_positions() -> None:
    class Renumbered(Samples):
        def _rows(self, index: Tensor) -> Any:
            inputs, target, _ = super()._rows(index)
            return inputs, target, 100 - index

    plain, renumbered = samples(), Renumbered(samples().inputs, samples().target)
    counts = []
    for data in (plain, renumbered):
        balancer, _ = balanced(SMV(warmup=0))
        next(balancer.epoch(DataLoader(data, batch_size=4, collate_fn=Samples.collate)))
        counts.append(balancer.method.counts)
    assert torch.equal(*counts)


def test_a_loader_without_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="map-style"):
        planned_loader([], [])
    with pytest.raises(ValueError, match="`variant`"):
        SMV(variant="batch")
