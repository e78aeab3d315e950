from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equivox as ev
from equivox.methods.optimization.sustained_boosting import SustainedBoosting
from equivox.modules.growing import Classifiers, Growing

Items = list[tuple[dict[str, Tensor], Tensor]]


def items(names: str = "ab", batches: int = 3, rows: int = 6) -> Items:
    draw = torch.Generator().manual_seed(1)
    return [
        ({m: torch.randn(rows, 3, generator=draw) for m in names}, torch.arange(rows) % 3)
        for _ in range(batches)
    ]


def balanced(
    method: SustainedBoosting, names: str = "ab", task: ev.Task | None = None, outputs: int = 3
) -> tuple[ev.Balancer, torch.optim.Optimizer]:
    torch.manual_seed(0)
    nets = {m: nn.Linear(3, 4 + i) for i, m in enumerate(names)}
    model = ev.Multimodal(nets, ev.Concat({m: 4 + i for i, m in enumerate(names)}, outputs))
    balancer = ev.Balancer(model, method, task=task or ev.Classification())
    sgd = torch.optim.SGD(balancer.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    return balancer, balancer.attach(sgd)


def fusion(balancer: ev.Balancer) -> Growing:
    found = balancer.model.fusion
    assert isinstance(found, Growing)
    return found


def trained(
    balancer: ev.Balancer, optimizer: torch.optim.Optimizer, data: Items, accumulate: int = 1
) -> None:
    for number, (x, y) in enumerate(balancer.epoch(data), start=1):
        (balancer(x, y) / accumulate).backward()
        if number % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()


def grown(balancer: ev.Balancer, modality: str, times: int = 1) -> None:
    for seed in range(times):
        fusion(balancer).grow(modality, torch.Generator().manual_seed(seed))


def test_the_loss_of_two_classifiers_by_hand() -> None:
    balancer, _ = balanced(SustainedBoosting(hidden=4, capacity=3))
    each = torch.tensor([[1.0, 0, 0], [0.5, 0.2, 0], [9.0, 9.0, 0]]).unsqueeze(1)
    numbers = torch.arange(3).view(-1, 1, 1)
    step = _step(balancer, torch.tensor([0]))
    method = balancer.method
    assert isinstance(method, SustainedBoosting)
    loss = method.boosting_loss(Classifiers(each, numbers <= 1, numbers == 1), step)
    assert loss.item() == pytest.approx(1.561504, abs=1e-6)
    alone = method.boosting_loss(Classifiers(each, numbers <= 0, numbers == 0), step)
    assert torch.equal(alone, F.cross_entropy(each[0], torch.tensor([0])))


def _step(balancer: ev.Balancer, target: Tensor) -> ev.step.Step:
    batch = ev.method.Batch({"a": torch.zeros(len(target), 3)}, target)
    return ev.step.Step(balancer.model, balancer.task, batch, 0, torch.Generator())


def test_sum_probs_and_sum_agree_on_one_classifier_before() -> None:
    losses = []
    for residual in ("sum", "sum_probs"):
        balancer, _ = balanced(SustainedBoosting(residual=residual, hidden=4, alternate=False))
        grown(balancer, "a")
        x, y = items(batches=1)[0]
        batches = balancer.epoch([(x, y)])
        losses.append(balancer(*next(batches)))
        batches.close()  # type: ignore[attr-defined]
    torch.testing.assert_close(losses[0], losses[1])


def test_a_new_classifier_leaves_the_other_modality_and_learns() -> None:
    balancer, optimizer = balanced(SustainedBoosting(hidden=4, capacity=2))
    trained(balancer, optimizer, items())
    x = items()[0][0]
    before = balancer.model.eval()(x).unimodal
    new = fusion(balancer).grow("b", torch.Generator().manual_seed(0))
    after = balancer.model(x).unimodal
    assert fusion(balancer).counts.tolist() == [1, 2]
    assert torch.equal(before["a"], after["a"]) and not torch.equal(before["b"], after["b"])
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert len(new) == 2 and {id(p) for p in new} <= held
    values = [p.detach().clone() for p in new]
    balancer.train()
    trained(balancer, optimizer, items())
    assert all(not torch.equal(p, v) for p, v in zip(new, values, strict=True))
    assert fusion(balancer).grow("b", torch.Generator()) == []  # no room


def test_the_weak_modality_grows_in_training_with_fresh_momentum() -> None:
    method = SustainedBoosting(hidden=8, period=1)
    balancer, optimizer = balanced(method)
    data = [({"a": 3.0 * F.one_hot(y, 3).float(), "b": 0.0 * x["b"]}, y) for x, y in items()] * 5
    for _ in range(3):
        trained(balancer, optimizer, data)
    assert fusion(balancer).counts.tolist() == [1, 3]
    batches = balancer.epoch(data)
    next(batches)
    newest = fusion(balancer).rooms["b"][3].weight  # type: ignore[index]
    assert newest not in optimizer.state
    batches.close()  # type: ignore[attr-defined]


def test_added_classifiers_stay_as_drawn_where_asked() -> None:
    balancer, optimizer = balanced(SustainedBoosting(hidden=4, train_added=False, period=50))
    grown(balancer, "a")
    layers = fusion(balancer).rooms["a"]
    before = [p.detach().clone() for p in layers.parameters()]
    trained(balancer, optimizer, items())
    same = [torch.equal(p, v) for p, v in zip(layers.parameters(), before, strict=True)]
    assert not any(same[:2]) and all(same[2:])


def test_classifiers_add_up_and_a_checkpoint_knows_how_many() -> None:
    balancer, _ = balanced(SustainedBoosting(hidden=4))
    grown(balancer, "b", times=3)
    x = items()[0][0]
    output = balancer.model(x)
    said = output.extra["b"]
    assert fusion(balancer).counts.tolist() == [1, 4]
    torch.testing.assert_close(said.each[:4].sum(0), output.unimodal["b"])
    torch.testing.assert_close(said.before() + said.added(), said.all())
    expected = (output.unimodal["a"] + output.unimodal["b"]) / 2
    torch.testing.assert_close(output.logits, expected)
    other, _ = balanced(SustainedBoosting(hidden=4))
    other.load_state_dict(balancer.state_dict())
    assert torch.equal(other.predict(x), balancer.predict(x))


def test_prediction_weights() -> None:
    method = SustainedBoosting(hidden=4, weights={"a": 0.8, "b": 1.2})
    balancer, _ = balanced(method)
    x = items()[0][0]
    said = balancer.model(x).unimodal
    torch.testing.assert_close(balancer.predict(x), 0.4 * said["a"] + 0.6 * said["b"])


def test_only_the_modality_of_the_turn_and_the_shared_layer_move() -> None:
    balancer, optimizer = balanced(SustainedBoosting(hidden=4))
    data = items()
    trained(balancer, optimizer, data)  # momentum everywhere
    batches = balancer.epoch(data)
    x, y = next(batches)
    assert set(x) == {"a"}
    before = {k: v.clone() for k, v in balancer.model.state_dict().items()}
    balancer(x, y).backward()
    optimizer.step()
    moved = {k for k, v in balancer.model.state_dict().items() if not torch.equal(v, before[k])}
    assert {"encoders.a.weight", "fusion.shared.weight"} <= moved
    assert not any(".b." in k for k in moved)
    batches.close()  # type: ignore[attr-defined]


def test_micro_batches_equal_one_batch() -> None:
    states = []
    for accumulate, rows in ((1, 12), (2, 6)):
        method = SustainedBoosting(hidden=4, period=1, tau=0.0, accumulation=accumulate)
        balancer, optimizer = balanced(method, "abc")
        whole = items("abc", batches=2, rows=12)
        data = [
            ({m: v[i : i + rows] for m, v in x.items()}, y[i : i + rows])
            for x, y in whole
            for i in range(0, 12, rows)
        ]
        for _ in range(3):
            trained(balancer, optimizer, data, accumulate)
        states.append(balancer.model.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-5)


def test_a_scaler_changes_nothing() -> None:
    states = []
    for enabled in (False, True):
        balancer, optimizer = balanced(SustainedBoosting(hidden=4, period=1))
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=enabled)
        for _ in range(2):
            for x, y in balancer.epoch(items()):
                scaler.scale(balancer(x, y)).backward()
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
        states.append(balancer.model.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-5, atol=1e-6)


def test_refusals() -> None:
    for arguments in ({"lam": 2.0}, {"period": 0}, {"capacity": 0}, {"residual": "all"}):
        with pytest.raises(ValueError, match=f"`{next(iter(arguments))}`"):
            SustainedBoosting(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`weights` should be positive"):
        balanced(SustainedBoosting(weights={"a": 1.0}))
