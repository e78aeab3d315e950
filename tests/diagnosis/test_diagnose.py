"""The whole diagnosis, of small networks of every kind."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

import equivox as ev
from equivox.bench.experiment import Experiment
from equivox.bench.training import train
from equivox.data import MultimodalData
from equivox.diagnosis.diagnose import Diagnosis, diagnose
from equivox.diagnosis.reference import trained_alone
from equivox.diagnosis.verdict import UNSURE, limit
from equivox.features import map_tensors
from equivox.model import Multimodal
from equivox.task import Classification, Dense, MultiLabel, Regression, Task

EPOCHS = 3
Batches = Mapping[str, list[Any]]


def trained(name: str, epochs: int = 2, samples: int = 900) -> tuple[ev.Balancer, MultimodalData]:
    experiment = Experiment(name, epochs=epochs, data_options={"samples": samples})
    balancer = train(experiment).balancer
    assert balancer is not None
    return balancer, experiment.load()


def loaders(data: MultimodalData) -> dict[str, Any]:
    found = {split: data.loader(split) for split in ("validation", "test")}
    return {"train": data.loader("train", generator=torch.Generator().manual_seed(3)), **found}


def batches(inputs: Mapping[str, Any], target: Tensor, size: int = 40) -> dict[str, list[Any]]:
    """Half of the samples for training, an eighth for validation, the rest for testing."""
    count = len(target)
    ends = {"train": (0, count // 2), "validation": (count // 2, count * 5 // 8)}
    ends["test"] = (count * 5 // 8, count)
    found: dict[str, list[Any]] = {}
    for split, (begin, end) in ends.items():
        rows = torch.arange(begin, end).split(size)
        found[split] = [
            (map_tensors(lambda x, r=r: x[r], dict(inputs)), target[r], r) for r in rows
        ]
    return found


def numbers(count: int = 600) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    return {m: torch.randn(count, 4, generator=g) for m in ("a", "b")}


def network(outputs: int = 2, norm: bool = False) -> Multimodal:
    torch.manual_seed(0)

    def encoder() -> nn.Module:
        middle = [nn.BatchNorm1d(8)] if norm else []
        return nn.Sequential(nn.Linear(4, 8), *middle, nn.ReLU(), nn.Dropout(0.1))

    return Multimodal({m: encoder() for m in ("a", "b")}, ev.Concat({"a": 8, "b": 8}, outputs))


X = numbers()
LABEL = (X["a"][:, 0] + X["b"][:, 0] > 0).long()


def plain_json(found: Diagnosis) -> dict[str, Any]:
    """Its JSON, after a look that it is JSON and comes back as it was."""
    plain = found.to_json()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    return plain


@pytest.fixture(scope="module")
def latent2() -> tuple[ev.Balancer, MultimodalData]:
    return trained("latent2", epochs=4, samples=1500)


# ── what it finds ───────────────────────────────────────────────────────────────────────────────


def test_the_hard_modality_falls_behind(latent2: tuple[ev.Balancer, MultimodalData]) -> None:
    balancer, data = latent2
    told: list[tuple[str, float]] = []
    found = diagnose(
        balancer,
        loaders(data),
        encoders=data.encoders(),
        epochs=30,
        told=lambda what, share: told.append((what, share)),
        receipt={"seed": 0, "path": Path("run")},
    )
    assert found.modalities == ("easy", "hard")
    assert found.samples == {"train": 750, "validation": 150, "test": 600}
    assert found.verdict.suspect == found.hurt.modality == "hard"
    assert found.probes["hard"].gap.value > found.probes["easy"].gap.value
    assert found.use["hard"].divergence.value < found.use["easy"].divergence.value
    assert found.ahead["hard"].value < found.ahead["easy"].value < limit("underfit")
    assert set(found.contributions) == {"zero", "mean", "shuffle"}
    zero = found.contributions["zero"].values
    assert zero["easy"].value > zero["hard"].value
    assert found.headroom.best_single == "easy"
    assert sum(route.samples for route in found.routing) == 600
    assert all(epochs <= 30 for epochs, _ in found.epochs_alone.values())
    assert found.prescription
    plain = plain_json(found)
    assert plain["receipt"]["seed"] == 0 and plain["receipt"]["path"] == "run"
    assert set(plain["receipt"]["versions"]) == {"equivox", "torch"}
    shares = [share for _, share in told]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1
    assert any(what.startswith("hard alone, epoch") for what, _ in told)


def test_a_model_and_the_balancer_around_it_are_one(
    latent2: tuple[ev.Balancer, MultimodalData],
) -> None:
    balancer, data = latent2
    references = {
        m: trained_alone(
            encoder, m, balancer, data.loader("train"), data.loader("validation"),
            optimizer=torch.optim.Adam, epochs=2,
        )
        for m, encoder in data.encoders().items()
    }  # fmt: skip
    one = diagnose(balancer, loaders(data), references=references)
    other = diagnose(balancer.model, loaders(data), references=references, task=data.task)
    assert one.headroom == other.headroom and one.use == other.use
    assert one.contributions == other.contributions
    assert one.epochs_alone == {"easy": (2, False), "hard": (2, False)}


def test_three_modalities() -> None:
    balancer, data = trained("latent3", epochs=1)
    found = diagnose(balancer, loaders(data), epochs=EPOCHS)
    assert list(found.contributions["zero"].interaction) == [
        "easy + hard", "easy + weak", "hard + weak",
    ]  # fmt: skip
    assert len(found.contributions["zero"].subsets) == 8
    assert set(found.robustness) == set(found.probes) == {"easy", "hard", "weak"}
    plain_json(found)


def test_regression() -> None:
    balancer, data = trained("latent_regression", epochs=1)
    found = diagnose(balancer, loaders(data), epochs=EPOCHS)
    assert found.routing == [] and found.calibration.error == {}
    assert found.headroom.chance == 0
    assert all(case["network_confidence"] is None for case in plain_json(found)["hurt"]["cases"])


class Plain(nn.Module):
    """A network written without this library."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        self.last = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.last(torch.cat([self.first(a), self.second(b)], 1))


def test_an_adopted_network() -> None:
    torch.manual_seed(0)
    net = Plain()
    model = Multimodal.from_model(
        net, {"a": "first", "b": "second"}, {m: x[:8] for m, x in X.items()},
        call=lambda net, x: net(x["a"], x["b"]),
    )  # fmt: skip
    before = {name: p.clone() for name, p in net.state_dict().items()}
    found = diagnose(model, batches(X, LABEL), task=Classification(2), epochs=30)
    assert all(torch.equal(before[name], p) for name, p in net.state_dict().items())
    assert found.headroom.alone["a"].value > 0.6
    plain_json(found)


class Tokens(nn.Module):
    """(batch, time, width) -> tokens, and a mask of their padding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(x).tanh(), torch.zeros(x.shape[:2], dtype=torch.bool)


def cases() -> Iterator[Any]:
    g = torch.Generator().manual_seed(1)
    labels = torch.stack([X["a"][:, 0] > 0, X["b"][:, 0] > 0, X["a"][:, 1] > 1], 1).float()
    yield pytest.param(network(3), batches(X, labels), MultiLabel(3), id="labels")
    maps = {m: torch.randn(360, 2, 5, 5, generator=g) for m in ("a", "b")}
    dense = (maps["a"][:, 0] + maps["b"][:, 0] > 0).long()
    dense[:, 0, 0] = 255
    nets = {m: nn.Conv2d(2, 8, 3, padding=1) for m in maps}
    model = Multimodal(nets, ev.Concat({"a": 8, "b": 8}, 2, pool=False))
    yield pytest.param(model, batches(maps, dense), Dense(2), id="dense")
    texts = {"a": torch.randn(360, 5, 6, generator=g), "b": torch.randn(360, 3, 4, generator=g)}
    label = (texts["a"].mean((1, 2)) > 0).long()
    read = {"a": Tokens(6), "b": Tokens(4)}
    model = Multimodal(read, ev.Attention({"a": 8, "b": 8}, 2))
    yield pytest.param(model, batches(texts, label), Classification(2), id="sequences")
    soft = nn.functional.one_hot(LABEL, 2).float()
    yield pytest.param(network(), batches(X, soft), Classification(2), id="distributions")
    yield pytest.param(
        network(), {s: [item[:2] for item in x] for s, x in batches(X, LABEL).items()},
        Classification(2), id="without index",
    )  # fmt: skip
    yield pytest.param(
        network().requires_grad_(False), batches(X, LABEL), Classification(2), id="frozen"
    )
    there = {"a": torch.arange(600) % 5 > 0}
    yield pytest.param(
        network(), batches({**X, "present": there}, LABEL), Classification(2), id="absent"
    )


@pytest.mark.parametrize(("model", "data", "task"), list(cases()))
def test_every_kind_of_network(model: Multimodal, data: Batches, task: Task) -> None:
    found = diagnose(model, data, task=task, epochs=EPOCHS)
    assert (found.probes == {}) == isinstance(task, Dense)
    assert (found.conflict is None) == (not any(p.requires_grad for p in model.parameters()))
    assert found.verdict.suspect in model.modalities
    assert all(math.isfinite(x.value) for x in found.headroom.alone.values())
    plain_json(found)


# ── what it leaves as it was ────────────────────────────────────────────────────────────────────


def test_the_subject_and_the_random_state_are_untouched() -> None:
    model = network(norm=True)
    balancer = ev.Balancer(model, ev.UnimodalLosses(), task=Classification(2))
    optimizer = balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.1, momentum=0.9))
    data = ev.data.base.Samples(X, LABEL)
    parts = {
        split: torch.utils.data.DataLoader(
            data, 50, shuffle=True, generator=torch.Generator().manual_seed(1),
            collate_fn=ev.data.base.Samples.collate,
        )
        for split in ("train", "validation", "test")
    }  # fmt: skip
    for batch in balancer.epoch(parts["train"]):
        balancer(*batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.encoders["a"].eval()
    model.encoders["b"][0].weight.requires_grad_(False)

    def state() -> list[Any]:
        return [
            {k: v.clone() for k, v in balancer.state_dict().items()},
            {k: v.clone() for s in optimizer.state.values() for k, v in s.items()},
            {"generator": torch.cat([p.generator.get_state() for p in parts.values()])},
            [m.training for m in balancer.modules()],
            [(p.requires_grad, p.grad) for p in balancer.parameters()],
            [torch.get_rng_state().tolist(), random.getstate()],
            [numpy.random.get_state()[1].tolist(), torch.is_grad_enabled()],
        ]

    before = state()
    diagnose(balancer, parts, epochs=EPOCHS)
    after = state()
    for one, other in zip(before, after, strict=True):
        if isinstance(one, dict):
            assert [k for k in one if not torch.equal(one[k], other[k])] == []
        else:
            assert one == other
    assert balancer.optimizer is optimizer


def test_encoders_that_are_given_are_copied() -> None:
    model = network()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    diagnose(
        model, batches(X, LABEL), task=Classification(2), encoders=dict(model.encoders.items()),
        epochs=EPOCHS,
    )  # fmt: skip
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_twice_the_same() -> None:
    one, other = (
        plain_json(diagnose(network(), batches(X, LABEL), task=Classification(2), epochs=2))
        for _ in range(2)
    )
    assert one == other


def test_twice_the_same_whatever_was_drawn_before() -> None:
    """A loader that shuffles draws its order from the ambient random state."""
    data = ev.data.base.Samples(X, LABEL)
    shuffled = torch.utils.data.DataLoader(
        data, 25, shuffle=True, collate_fn=ev.data.base.Samples.collate
    )
    parts = {**batches(X, LABEL), "train": shuffled}
    found = []
    for seed in (1, 2):
        model = network()
        torch.manual_seed(seed)
        found.append(plain_json(diagnose(model, parts, task=Classification(2), epochs=1)))
    assert found[0] == found[1]


def test_references_learn_with_the_settings_of_their_encoders_group() -> None:
    rates: list[float] = []

    class Noted(torch.optim.SGD):
        def __init__(self, parameters: Any, lr: float = 0.001) -> None:
            super().__init__(parameters, lr=lr)
            rates.append(self.param_groups[0]["lr"])

    balancer = ev.Balancer(network(), task=Classification(2))
    encoders = balancer.model.encoders
    groups = [(balancer.model.fusion, 0.2), (encoders["a"], 0.1), (encoders["b"], 0.05)]
    balancer.attach(Noted([{"params": part.parameters(), "lr": lr} for part, lr in groups]))
    rates.clear()
    diagnose(balancer, batches(X, LABEL), epochs=1)
    assert rates == [0.1, 0.05]


# ── bad input ───────────────────────────────────────────────────────────────────────────────────


def test_nan_in_one_modality_is_named_and_the_rest_measured() -> None:
    broken = {m: x.clone() for m, x in X.items()}
    broken["b"][::7, 1] = torch.nan
    found = diagnose(network(), batches(broken, LABEL), task=Classification(2), epochs=EPOCHS)
    assert found.verdict.kind == UNSURE
    assert "`b` holds NaN or infinity in 32 of 225 test samples: 378, 385" in str(found.verdict)
    (first, *_) = [each for each in found.data if each.code == "nonfinite"]
    assert (first.modality, first.severity) == ("b", "fault")
    assert found.samples["test"] == 225 - 32
    assert math.isfinite(found.headroom.joint.value) and math.isfinite(found.probes["b"].gap.value)
    plain_json(found)


def without_b(splits: set[str]) -> Batches:
    """The batches, with nothing but NaN for `b` in some splits."""
    lost = {**X, "b": torch.full_like(X["b"], torch.nan)}
    good, bad = batches(X, LABEL), batches(lost, LABEL)
    return {split: bad[split] if split in splits else good[split] for split in good}


@pytest.mark.parametrize("splits", [{"train", "validation", "test"}, {"test"}, {"train"}])
def test_a_modality_of_nan_alone_is_the_verdict(splits: set[str]) -> None:
    found = diagnose(network(), without_b(splits), task=Classification(2), epochs=EPOCHS)
    assert found.verdict.kind == UNSURE and found.prescription
    split = {"train": "300 of 300 training"}.get("".join(splits), "225 of 225 test")
    assert any(f"`b` holds NaN or infinity in {split} samples" in r for r in found.verdict.reasons)
    assert found.modalities == ("a", "b")
    assert found.samples == {"train": 300, "validation": 75, "test": 225}
    parts = (found.headroom.alone, found.use, found.late_use, found.probes, found.robustness)
    for part in (*parts, found.verdict.modalities, found.contributions["mean"].values):
        assert set(part) == {"a"}
    assert math.isfinite(found.headroom.joint.value) and found.hurt.modality == "a"
    plain_json(found)
    assert "-" in str(found) and "holds NaN" in found._repr_html_()


def test_the_other_modalities_are_measured_as_without_it() -> None:
    """What is lost is blank for the network, and everything else as for a network of the others."""
    names = ("a", "b", "c")
    inputs = {**X, "c": X["a"] + 0.5 * X["b"]}
    torch.manual_seed(0)
    nets = {m: nn.Linear(4, 4) for m in names}
    model = Multimodal(nets, ev.Concat(dict.fromkeys(names, 4), 2))
    lost = {**inputs, "c": torch.full_like(X["a"], torch.nan)}
    found = diagnose(model, batches(lost, LABEL), task=Classification(2), epochs=EPOCHS)
    absent = {**inputs, "present": {"c": torch.zeros(600, dtype=torch.bool)}}
    blank = diagnose(model, batches(absent, LABEL), task=Classification(2), epochs=EPOCHS)
    assert found.headroom.joint == blank.headroom.joint
    assert found.use == {m: blank.use[m] for m in ("a", "b")}
    assert found.probes == {m: blank.probes[m] for m in ("a", "b")}
    assert found.contributions["zero"].subsets == {
        name: value for name, value in blank.contributions["zero"].subsets.items()
        if "c" not in name
    }  # fmt: skip


def test_nothing_but_nan_is_refused_by_name() -> None:
    lost = {m: torch.full_like(x, torch.nan) for m, x in X.items()}
    named = "in every sample of `a` of the train data, `b` of the train data"
    with pytest.raises(ValueError, match=named):
        diagnose(network(), batches(lost, LABEL), task=Classification(2))


def test_a_class_that_training_lacks_is_a_fault() -> None:
    target = LABEL.clone()
    target[375:][X["a"][375:, 1] > 1] = 2
    found = diagnose(network(3), batches(X, target), task=Classification(3), epochs=EPOCHS)
    assert found.verdict.kind == UNSURE
    assert "1 classes of the test data are not in the training data: 2" in str(found.verdict)
    plain_json(found)


@pytest.mark.parametrize("norm", [False, True])
def test_batches_of_one_sample(norm: bool) -> None:
    one = batches(X, LABEL, size=1)
    if norm:
        with pytest.raises(ValueError, match=r"BatchNorm.*Found batches of one sample"):
            diagnose(network(norm=True), one, task=Classification(2), epochs=1)
    else:
        plain_json(diagnose(network(), one, task=Classification(2), epochs=1))


def test_weights_that_are_not_finite_are_refused() -> None:
    model = network()
    with torch.no_grad():
        model.encoders["b"][0].bias[0] = torch.nan
    with pytest.raises(ValueError, match=r"features of finite inputs.*of `b` for 225 of 225"):
        diagnose(model, batches(X, LABEL), task=Classification(2))


@pytest.mark.parametrize("task", [Classification(2), Regression(1)])
def test_a_single_target_in_the_test_data(task: Task) -> None:
    outputs = 2 if isinstance(task, Classification) else 1
    target = LABEL.clone() if outputs == 2 else X["a"][:, :1].clone()
    target[375:] = 0
    found = diagnose(network(outputs), batches(X, target), task=task, epochs=EPOCHS)
    assert found.verdict.kind == UNSURE
    assert "The test data have a single target value" in str(found.verdict)
    plain_json(found)


class Reshuffled:
    """Another order at every pass, known to nobody."""

    def __init__(self, items: list[Any], index: bool) -> None:
        self.items, self.index, self.passes = items, index, 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        inputs, target, number = _joined(self.items)
        order = torch.randperm(len(target), generator=torch.Generator().manual_seed(self.passes))
        for rows in order.split(50):
            item = ({m: x[rows] for m, x in inputs.items()}, target[rows])
            yield (*item, number[rows]) if self.index else item


def _joined(items: list[Any]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    inputs = {m: torch.cat([item[0][m] for item in items]) for m in items[0][0]}
    return inputs, torch.cat([i[1] for i in items]), torch.cat([i[2] for i in items])


def test_a_loader_that_reshuffles_needs_the_index() -> None:
    parts = batches(X, LABEL)
    task, model = Classification(2), network()
    blind = {**parts, "test": Reshuffled(parts["test"], index=False)}
    with pytest.raises(ValueError, match="the same samples in the same order"):
        diagnose(model, blind, task=task, epochs=1)
    numbered = {**parts, "test": Reshuffled(parts["test"], index=True)}
    found = diagnose(model, numbered, task=task, epochs=1)
    assert found.headroom == diagnose(model, parts, task=task, epochs=1).headroom


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"task": None}, ValueError, "does not say what it is trained for"),
        ({"subject": nn.Linear(2, 2)}, TypeError, "Found `Linear`.*from_model"),
        ({"epochs": 0}, ValueError, "`epochs` should"),
        ({"encoders": {"a": nn.Linear(4, 8)}}, ValueError, r"`encoders` should.*\['a'\]"),
        ({"references": {"a": None, "c": None}}, ValueError, r"`references` should"),
        ({"loaders": {"train": [], "test": []}}, ValueError, r"Found no \['validation'\]"),
        ({"task": Regression(1)}, ValueError, "The train data do not fit the network"),
        ({"metric": "acuracy"}, ValueError, "Found `acuracy`. Did you mean `accuracy`"),
    ],
)
def test_what_does_not_belong_together(given: dict[str, Any], kind: Any, message: str) -> None:
    known = {"subject": network(), "loaders": batches(X, LABEL), "task": Classification(2)}
    with pytest.raises(kind, match=message):
        diagnose(**(known | given))


def test_one_modality_has_no_balance() -> None:
    model = Multimodal({"a": nn.Linear(4, 8)}, ev.Concat({"a": 8}, 2))
    with pytest.raises(ValueError, match=r"Found \['a'\] alone"):
        diagnose(model, batches({"a": X["a"]}, LABEL), task=Classification(2))
