from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader

from equivox.balancer import Balancer
from equivox.data.base import Samples
from equivox.diagnosis import reference
from equivox.diagnosis.metric import value
from equivox.diagnosis.reference import only, optimizer_like, renewed, trained_alone
from equivox.fusion import Concat
from equivox.model import Multimodal
from equivox.task import Classification, Dense, Regression, Task


def encoder(width: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU())


def network(task: Task | None = None) -> Balancer:
    torch.manual_seed(0)
    outputs = 1 if isinstance(task, Regression) else 2
    model = Multimodal({"a": encoder(), "b": encoder()}, Concat({"a": 8, "b": 8}, outputs))
    return Balancer(model, task=task or Classification(2))


def samples(count: int, seed: int, numbers: bool = False) -> Samples:
    g = torch.Generator().manual_seed(seed)
    x = {m: torch.randn(count, 4, generator=g) for m in ("a", "b")}
    told = x["a"][:, :1] - x["a"][:, 1:2]
    return Samples(x, told if numbers else (told > 0).long().squeeze(1))


def loader(count: int, seed: int, numbers: bool = False) -> DataLoader[Any]:
    g = torch.Generator().manual_seed(7)
    data = samples(count, seed, numbers)
    return DataLoader(data, 32, shuffle=True, generator=g, collate_fn=Samples.collate)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items() if isinstance(v, Tensor)}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# ── training alone ──────────────────────────────────────────────────────────────────────────────


def test_it_learns_what_there_is_and_stops_by_itself() -> None:
    train, validation, test = (loader(n, s) for s, n in enumerate((320, 200, 400)))
    reached = {}
    for m in ("a", "b"):
        found = trained_alone(encoder(), m, network(), train, validation, optimizer=adam)
        assert found.converged and 5 < found.epochs < 100
        rows = found.answers(only(test, m))
        assert rows["features"].shape == (400, 8) and rows["logits"].shape == (400, 2)
        reached[m] = value(Classification(2), rows["logits"], rows["target"])
    assert reached["a"] > 0.9
    assert reached["b"] == pytest.approx(0.5, abs=0.1)


def test_epochs_may_run_out() -> None:
    told: list[int] = []
    train, validation = loader(64, 0), loader(64, 1)
    found = trained_alone(
        encoder(), "a", network(), train, validation, optimizer=adam, epochs=2, told=told.append
    )
    assert (found.epochs, found.converged, told) == (2, False, [1, 2])


def test_the_best_epoch_is_kept() -> None:
    """With a rate that breaks what was learned, the weights before it are those that stay."""
    rates = iter([0.01, 0.01, 50.0, 50.0, 50.0, 50.0, 50.0, 50.0, 50.0])
    optimizers: list[torch.optim.Optimizer] = []

    def sgd(parameters: Any) -> torch.optim.Optimizer:
        optimizers.append(torch.optim.SGD(parameters, lr=0.5))
        return optimizers[0]

    def told(_: int) -> None:
        optimizers[0].param_groups[0]["lr"] = next(rates)

    train, validation = loader(320, 0), loader(200, 1)
    found = trained_alone(
        encoder(), "a", network(), train, validation, optimizer=sgd, epochs=8, told=told
    )
    rows = found.answers(only(validation, "a"))
    assert value(Classification(2), rows["logits"], rows["target"]) > 0.85


def test_a_falling_loss_shows_that_it_still_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sample's dip of the metric ends nothing; the weights are those of the best epoch."""
    known = iter([(0.9, 1.0), (0.8, 0.9), (0.8, 0.8), (0.8, 0.7), (0.8, 0.7), (0.8, 0.7)])
    monkeypatch.setattr(reference, "_held_out", lambda *_: next(known))
    net, states = encoder(), []
    found = trained_alone(
        net, "a", network(), loader(64, 0), [], optimizer=adam, patience=2,
        told=lambda _: states.append(state(net)),
    )  # fmt: skip
    assert (found.epochs, found.converged) == (6, True)
    assert same(states[0], state(net)) and not same(states[1], state(net))


def test_where_the_metric_is_undefined_the_loss_decides() -> None:
    """R2 says nothing of a constant target."""
    train = loader(64, 0, numbers=True)
    held = [({"a": torch.randn(20, 4)}, torch.zeros(20, 1))]
    net = encoder()
    before = state(net)
    found = trained_alone(net, "a", network(Regression()), train, held, optimizer=adam, epochs=3)
    assert all(math.isnan(x) for x in found.curve)
    assert not same(before, state(net))


def test_nothing_outside_changes() -> None:
    balancer, net, train, validation = network(), encoder(), loader(65, 0), loader(64, 1)
    before = [state(balancer), torch.get_rng_state(), train.generator.get_state()]
    one = trained_alone(net, "a", balancer, train, validation, optimizer=adam, epochs=2)
    one.answers(only(train, "a"))
    assert same(before[0], state(balancer))
    assert torch.equal(before[1], torch.get_rng_state())
    assert torch.equal(before[2], train.generator.get_state())


def test_the_same_seed_gives_the_same_model() -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(5)
        net, train, validation = encoder(), loader(64, 0), loader(64, 1)
        torch.rand(3)
        one = trained_alone(net, "a", network(), train, validation, optimizer=adam, epochs=2)
        found.append(state(one.balancer.model))
    assert same(*found)


def test_a_last_batch_of_one_sample_is_left_out_where_batchnorm_cannot_train_on_it() -> None:
    found = trained_alone(
        encoder(), "a", network(), loader(33, 0), loader(64, 1), optimizer=adam, epochs=1
    )
    assert found.epochs == 1
    single = DataLoader(samples(8, 0), 1, collate_fn=Samples.collate)
    net = nn.Linear(4, 8)
    before = state(net)
    trained_alone(net, "a", network(), single, loader(64, 1), optimizer=adam, epochs=1)
    assert not same(before, state(net))


def test_regression_and_dense() -> None:
    task = Regression()
    train, validation = loader(320, 0, numbers=True), loader(200, 1, numbers=True)
    found = trained_alone(encoder(), "a", network(task), train, validation, optimizer=adam)
    rows = found.answers(only(validation, "a"))
    assert value(task, rows["logits"], rows["target"]) > 0.8
    nets = {m: nn.Conv2d(1, 4, 1) for m in ("a", "b")}
    model = Multimodal(nets, Concat({"a": 4, "b": 4}, 2, pool=False))
    x = torch.randn(64, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    maps = [({"a": x, "b": x}, (x[:, 0] > 0).long())]
    dense = Balancer(model, task=Dense(2))
    one = trained_alone(nn.Conv2d(1, 4, 1), "a", dense, maps, maps, optimizer=adam, epochs=20)
    assert one.answers(only(maps, "a"))["logits"].shape == (64, 2, 3, 3)


def test_a_loss_that_is_not_finite_names_the_modality() -> None:
    def wild(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=1e30)

    train, validation = loader(320, 0, numbers=True), loader(64, 1, numbers=True)
    with pytest.raises(FloatingPointError, match="`a` could not be trained alone"):
        trained_alone(
            nn.Linear(4, 8), "a", network(Regression()), train, validation, optimizer=wild
        )


@pytest.mark.parametrize("name", ["epochs", "patience"])
def test_arguments_are_checked(name: str) -> None:
    options: Any = {name: 0}
    with pytest.raises(ValueError, match=f"`{name}` should"):
        trained_alone(encoder(), "a", network(), [], [], optimizer=adam, **options)


def test_only_shows_one_modality_and_its_presence() -> None:
    there = torch.tensor([True, False])
    inputs = {"a": torch.ones(2, 1), "b": torch.ones(2, 1), "present": {"a": there, "b": there}}
    ((seen, target),) = only([(inputs, torch.zeros(2))], "a")
    assert list(seen) == ["a", "present"] and list(seen["present"]) == ["a"]
    assert len(target) == 2


# ── fresh weights ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "net",
    [
        encoder(),
        nn.LSTM(3, 4),
        nn.Embedding(5, 3),
        nn.TransformerEncoderLayer(8, 2, 16),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)),
        nn.Identity(),
    ],
)
def test_weights_are_drawn_anew(net: nn.Module) -> None:
    before = state(net)
    one, again, other = renewed(net), renewed(net), renewed(net, seed=1)
    assert same(before, state(net))
    assert same(state(one), state(again))
    for name, p in net.named_parameters():
        fresh = dict(one.named_parameters())[name]
        if p.amin() != p.amax():
            assert not torch.equal(fresh, p), name
            if fresh.amin() != fresh.amax():
                assert not torch.equal(fresh, dict(other.named_parameters())[name]), name


def test_statistics_begin_anew() -> None:
    net = encoder()
    net(torch.randn(8, 4) + 3)
    assert renewed(net)[1].running_mean.abs().sum() == 0
    assert net[1].running_mean.abs().sum() > 0


def test_the_random_state_stays() -> None:
    net, before = encoder(), torch.get_rng_state()
    renewed(net)
    assert torch.equal(before, torch.get_rng_state())


class Query(nn.Module):
    """Has weights that nothing draws."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(3))
        self.layer = nn.Linear(3, 3)


class Claims(Query):
    """Says that it draws them, and does not."""

    def reset_parameters(self) -> None:
        self.layer.reset_parameters()


@pytest.mark.parametrize(
    ("net", "name"),
    [
        (nn.Sequential(Query()), "0.query"),
        (Claims(), "query"),
        (parametrizations.weight_norm(nn.Linear(3, 3)), "parametrizations.weight.original"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(net: nn.Module, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}.*Pass `encoders=`"):
        renewed(net)


def test_frozen_weights_beside_learning_ones_stay() -> None:
    net = nn.Linear(3, 2)
    net.weight.requires_grad_(False)
    fresh = renewed(net)
    assert torch.equal(fresh.weight, net.weight) and not torch.equal(fresh.bias, net.bias)


def test_frozen_parts_stay() -> None:
    net = nn.Sequential(Query().requires_grad_(False), nn.Linear(3, 2))
    fresh = renewed(net)
    assert torch.equal(fresh[0].query, net[0].query)
    assert not fresh[0].query.requires_grad and fresh[1].weight.requires_grad
    assert torch.equal(fresh[0].layer.weight, net[0].layer.weight)
    assert not torch.equal(fresh[1].weight, net[1].weight)


# ── the optimizer ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        ("Adam", {"lr": 0.1, "betas": (0.8, 0.9)}),
        ("AdamW", {"lr": 0.1, "weight_decay": 0.3}),
        ("RMSprop", {"lr": 0.1, "alpha": 0.8}),
        ("Adagrad", {"lr": 0.1}),
        ("NAdam", {"lr": 0.1}),
    ],
)
def test_the_optimizer_is_built_with_the_same_settings(kind: str, settings: Any) -> None:
    weights = [nn.Parameter(torch.ones(2))]
    one = getattr(torch.optim, kind)(weights, **settings)
    other = optimizer_like(one)([nn.Parameter(torch.ones(3))])
    assert type(other) is type(one)
    for name, setting in settings.items():
        assert other.param_groups[0][name] == setting
    assert one.param_groups[0]["params"] is not other.param_groups[0]["params"]


def test_the_rate_is_that_before_a_schedule() -> None:
    one = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.5)
    schedule = torch.optim.lr_scheduler.ExponentialLR(one, 0.1)
    one.step()
    schedule.step()
    assert one.param_groups[0]["lr"] == pytest.approx(0.05)
    assert optimizer_like(one)([nn.Parameter(torch.ones(2))]).param_groups[0]["lr"] == 0.5


def test_the_settings_are_those_of_the_encoders_group() -> None:
    nets = [nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)]
    one = torch.optim.AdamW(
        [
            {"params": [nets[0].weight], "lr": 1e-5, "weight_decay": 0.1},
            {"params": [nets[0].bias, *nets[1].parameters()], "lr": 1e-4},
        ]
    )
    found = [optimizer_like(one, net)([nn.Parameter(torch.ones(2))]) for net in nets]
    settings = [(x.param_groups[0]["lr"], x.param_groups[0]["weight_decay"]) for x in found]
    assert settings == [(1e-5, 0.1), (1e-4, 0.01), (1e-5, 0.1)]


def test_adam_where_there_is_none() -> None:
    assert type(optimizer_like(None)([nn.Parameter(torch.ones(2))])) is torch.optim.Adam
