"""Dynamics: every curve by hand, what is absent, and that recording changes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from equivox import OGMGE, Classification, Concat, Greedy, Multimodal
from equivox.balancer import Balancer
from equivox.bench.experiment import Experiment
from equivox.bench.measure import measure
from equivox.bench.training import train
from equivox.diagnosis.dynamics import Dynamics, overfitting_ratio
from equivox.diagnosis.onset import Onset, collapse, onset
from equivox.diagnosis.recorder import Recorder, Recording
from equivox.functional.learning_speed import conditional_speeds
from equivox.method import Method
from equivox.modules.fisher_traces import FisherTraces
from equivox.testing.problem import Problem, sgd, state, steps

BY_SPLIT = ("metric", "loss", "discrepancy", "utilisation")
BY_UPDATE = ("gradient_norm", "update_ratio", "learning_speed", "fisher_trace")


def recorded(
    problem: Problem, method: Method | None = None, epochs: int = 2, **options: Any
) -> tuple[Recorder, Balancer]:
    """A training that is recorded."""
    balancer = problem.balancer(method or Method())
    optimizer = sgd(balancer, **options)
    recorder = Recorder(balancer, problem.loader(order=range(24)))
    recorder.attach()
    for _ in range(epochs):
        for _ in steps(balancer, optimizer, problem.loader()):
            pass
        recorder.record()
    return recorder, balancer


# ── onset and ratio ─────────────────────────────────────────────────────────────────────────────


def test_onset_by_hand() -> None:
    reference = [0.5, 0.7, 0.8, 0.9]
    assert onset(reference, reference) is None
    assert onset([0.5, 0.6, 0.6, 0.6], reference) == 1
    assert onset([0.5, 0.6, 0.8, 0.6], reference) is None  # a dip, and one at the end
    assert onset([0.5, 0.6, 0.8, 0.6], reference, steady=1) == 3
    assert onset([0.4, 0.5, 0.8, 0.9], reference) is None  # it caught up
    assert onset([0.4, 0.7, 0.6, 0.6], reference) == 2
    assert onset([0.5, 0.6, 0.6, 0.6], reference, margin=0.15) == 2
    assert onset([0.5, None, 0.6, None, 0.6], reference) == 2
    assert onset([0.9, 0.7, 0.7, 0.7], [0.9]) == 1  # the reference stays where it ended
    assert onset([0.5, 0.6], []) is None
    with pytest.raises(ValueError, match="`steady` should be 1 or more"):
        onset([0.5], [0.5], steady=0)


def test_collapse_by_hand() -> None:
    assert collapse([10.0, 8.0, 0.9, 0.5]) == 2
    assert collapse([10.0, 0.5, 8.0, None, 0.5, 0.4]) == 4  # not for good before
    assert collapse([1.0, 0.9, 0.5]) is None
    assert collapse([None, 5.0, 0.4, None, 0.3]) == 2
    assert collapse([5.0, 0.4]) is None  # one epoch is noise
    assert collapse([5.0, 0.4], steady=1) == 1
    assert collapse([]) is collapse([None, None]) is collapse([0.0, 0.0]) is None


def test_the_onset_of_every_modality() -> None:
    curves = {
        "probe": {"audio": (0.5, 0.6, 0.6, 0.6), "video": (0.5, 0.7, 0.8, 0.9)},
        "gradient_norm": {"audio": (4.0, 2.0, 0.3, 0.2), "video": (4.0, 3.0, 2.0, 1.0)},
    }
    dynamics = Dynamics(("audio", "video"), (0, 2, 4, 6), curves)
    alone = {"audio": [0.5, 0.55, 0.6, 0.65, 0.7], "video": [0.5, 0.6]}
    found = dynamics.with_onset(alone)
    assert found.onset == {"audio": Onset(4, 4, None), "video": Onset(None, None, None)}
    assert found.curves["alone"]["audio"] == (0.5, 0.6, 0.7, 0.7)
    assert dynamics.with_onset({}).curves == curves
    assert dynamics.with_onset({}).onset["audio"] == Onset(None, 4, None)
    assert Dynamics.from_json(json.loads(json.dumps(found.to_json()))).onset == found.onset


def test_where_all_encoders_fall_the_training_converged() -> None:
    fallen, kept = (4.0, 2.0, 0.3, 0.2), (4.0, 3.0, 2.0, 1.0)
    for others, epoch in (([kept, fallen], 2), ([fallen, fallen], None)):
        curves = {"gradient_norm": dict(zip("abc", [fallen, *others], strict=True))}
        found = Dynamics(("a", "b", "c"), (0, 1, 2, 3), curves).with_onset({})
        assert found.onset["a"].gradient_norm == epoch


def test_overfitting_ratio_by_hand() -> None:
    """The worked example of Gradient-Blending: audio, visual, joint."""
    before = [(1.2, 1.3), (1.6, 1.7), (1.4, 1.5)]
    after = [(0.4, 1.0), (1.0, 1.2), (0.5, 1.0)]
    ratios = [overfitting_ratio(a, b) for a, b in zip(before, after, strict=True)]
    assert ratios == pytest.approx([1.6667, 0.2, 0.8], rel=1e-4)
    assert overfitting_ratio((1.0, 1.0), (0.5, 1.0)) is None
    assert overfitting_ratio((None, 1.0), (0.5, 0.9)) is None


# ── by update ───────────────────────────────────────────────────────────────────────────────────


def test_what_is_measured_by_update() -> None:
    problem = Problem()
    balancer = problem.balancer(Method())
    optimizer = sgd(balancer, momentum=0.0, weight_decay=0.0)
    recorder = Recorder(balancer)
    recorder.attach()
    encoder = balancer.model.encoder_parameters("audio")
    traces = FisherTraces({"audio": encoder})
    norms, ratios, speeds = [], [], []
    for batch in balancer.epoch(problem.loader()):
        balancer(*batch).backward()
        flat = torch.cat([p.grad.flatten() for p in encoder if p.grad is not None])
        weights = torch.cat([p.detach().flatten() for p in encoder])
        norms.append(flat.norm().item())
        ratios.append((0.1 * flat.norm() / weights.norm()).item())
        speeds.append((flat.square().sum() / weights.square().sum()).item())
        traces.add_("audio", encoder)
        optimizer.step()
        optimizer.zero_grad()
    traces.finish_epoch_()
    numbers = recorder.record()
    count = len(norms)
    assert count == 3
    assert numbers["gradient_norm/audio"] == pytest.approx(sum(norms) / count)
    assert numbers["update_ratio/audio"] == pytest.approx(sum(ratios) / count, rel=1e-3)
    assert numbers["learning_speed/audio"] == pytest.approx(sum(speeds) / count)
    assert numbers["fisher_trace/audio"] == pytest.approx(traces.history["audio"][-1].item())


def test_gradients_are_those_that_the_optimizer_uses() -> None:
    plain, _ = recorded(Problem(), OGMGE(alpha=0.0, noise=False), epochs=1)
    slowed, _ = recorded(Problem(), OGMGE(alpha=3.0, noise=False), epochs=1)
    one, other = (r.dynamics.curves["gradient_norm"] for r in (plain, slowed))
    assert sum(float(x[0] or 0) for x in other.values()) < sum(
        float(x[0] or 0) for x in one.values()
    )


@pytest.mark.parametrize("epsilon", [0.0, 1e9])
def test_conditional_speed_is_that_of_greedy(epsilon: float) -> None:
    method = Greedy(epsilon=epsilon, window=1, starts=0)
    recorder, balancer = recorded(Problem(3), method)
    speeds = conditional_speeds(method.bypass, method.main)
    found = recorder.dynamics.curves["conditional_speed"]
    for m, speed in zip(balancer.model.modalities, speeds.tolist(), strict=True):
        assert found[m][-1] == pytest.approx(speed, rel=1e-6)


def test_an_encoder_without_a_gradient_is_not_counted() -> None:
    problem = Problem()
    balancer = problem.balancer(Method())
    optimizer = sgd(balancer)
    recorder = Recorder(balancer)
    recorder.attach()
    norms = []
    for number, batch in enumerate(balancer.epoch(problem.loader())):
        balancer(*batch).backward()
        encoder = balancer.model.encoder_parameters("audio")
        if number == 1:
            for p in encoder:
                p.grad = None
        else:
            norms.append(
                torch.cat([p.grad.flatten() for p in encoder if p.grad is not None]).norm()
            )
        optimizer.step()
        optimizer.zero_grad()
    numbers = recorder.record()
    assert numbers["gradient_norm/audio"] == pytest.approx(float(sum(norms)) / 2)


def test_a_closure_makes_no_difference() -> None:
    problem = Problem()
    found = []
    for closed in (False, True):
        balancer = problem.balancer(Method())
        optimizer = sgd(balancer)
        recorder = Recorder(balancer)
        recorder.attach()
        for batch in balancer.epoch(problem.loader()):
            optimizer.zero_grad()

            def closure(batch: Any = batch, balancer: Balancer = balancer) -> Tensor:
                loss = balancer(*batch)
                loss.backward()
                return loss

            if closed:
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
        found.append(recorder.record())
    by_update = {k for k in found[0] if k.split("/")[0] in ("gradient_norm", "update_ratio")}
    assert len(by_update) == 4
    assert all(found[0][k] == pytest.approx(found[1][k]) for k in by_update)


class NoHostReads(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert "_local_scalar_dense" not in str(func), "a number was read on the host"
        return func(*args, **(kwargs or {}))


def test_a_step_reads_nothing_on_the_host() -> None:
    problem = Problem()
    balancer = problem.balancer(Greedy(), nonfinite="skip")
    optimizer = sgd(balancer)
    Recorder(balancer).attach()
    batch = next(balancer.epoch(problem.loader()))
    balancer(*batch).backward()
    with NoHostReads():
        optimizer.step()


def test_a_step_that_is_not_finite_is_not_counted() -> None:
    balancer = Problem().balancer(Method())
    optimizer = sgd(balancer, lr=0.0)
    recorder = Recorder(balancer)
    recorder.attach()
    for bad in (False, True):
        for p in balancer.parameters():
            p.grad = torch.full_like(p, math.inf if bad else 1.0)
        optimizer.step()
    encoder = balancer.model.encoder_parameters("audio")
    wanted = sum(p.numel() for p in encoder) ** 0.5
    assert recorder.record()["gradient_norm/audio"] == pytest.approx(wanted)


# ── by epoch ────────────────────────────────────────────────────────────────────────────────────


def test_the_answers_are_those_of_the_network() -> None:
    problem = Problem()
    recorder, balancer = recorded(problem, epochs=1)
    numbers = recorder.dynamics.curves
    task, held_out = balancer.task, balancer.validation
    assert held_out is not None
    for m, metric in measure(balancer, held_out, held_out).branch.items():
        assert numbers["metric_validation"][m] == (pytest.approx(metric),)
    inputs, target, _ = next(iter(problem.loader(24, range(24))))
    with torch.no_grad():
        output = balancer.model(inputs)
        loss = task.loss(output.split["audio"], target).item()
        scores = {m: task.score(z, target).sum() for m, z in output.split.items()}
        alone = balancer.model.fuse(output.features, {"video"})
        right = [task.correct(z, target).mean().item() for z in (output.logits, alone)]
    assert numbers["loss_train"]["audio"] == (pytest.approx(loss),)
    rho = (scores["audio"] / scores["video"]).item()
    assert numbers["discrepancy_train"]["audio"] == (pytest.approx(rho),)
    assert numbers["discrepancy_train"]["video"] == (pytest.approx(1 / rho),)
    used = (right[0] - right[1]) / right[0]
    assert numbers["utilisation_train"]["audio"] == (pytest.approx(used),)


def test_own_heads_speak_for_their_modality_but_not_for_its_share() -> None:
    problem = Problem()
    model = problem.model()
    model.add_heads()
    assert model.heads is not None
    for p in model.heads.parameters():
        p.data.zero_()
    balancer = Balancer(model, task=Classification(3))
    numbers = Recorder(balancer, validation=problem.loader()).record()
    assert numbers["loss_validation/audio"] == pytest.approx(math.log(3))
    assert numbers["discrepancy_validation/audio"] != pytest.approx(1.0, abs=1e-4)


def test_clusters_and_probes_every_so_many_epochs() -> None:
    problem = Problem()
    recorder = Recorder(problem.balancer(Method()), problem.loader(), every=2)
    for _ in range(3):
        recorder.record()
    for name in ("probe", "purity_train", "purity_validation"):
        curve = recorder.dynamics.curves[name]["video"]
        assert [x is None for x in curve] == [False, True, False]
    assert None not in recorder.dynamics.curves["metric_train"]["video"]


def test_the_ratio_looks_back_a_window() -> None:
    recorder, _ = recorded(Problem(), epochs=4)
    recorder.window = 2
    curves = recorder.dynamics.curves
    train, held_out = curves["loss_train"]["audio"], curves["loss_validation"]["audio"]
    wanted = overfitting_ratio((train[0], held_out[0]), (train[3], held_out[3]))
    assert curves["overfitting_ratio"]["audio"][0] is None
    assert curves["overfitting_ratio"]["audio"][3] == pytest.approx(wanted)
    numbers = recorder.record()  # the weights are those of epoch 3
    wanted = overfitting_ratio((train[2], held_out[2]), (train[3], held_out[3]))
    assert numbers["overfitting_ratio/audio"] == pytest.approx(wanted)


def test_separable_features_are_pure_and_linearly_read() -> None:
    x = torch.arange(3).repeat(8)
    apart = nn.functional.one_hot(x, 3).float()
    model = Multimodal({"a": nn.Identity(), "b": nn.Identity()}, Concat({"a": 3, "b": 3}, 3))
    items = [({"a": apart, "b": torch.ones(24, 3)}, x)]
    recorder = Recorder(Balancer(model, task=Classification(3)), items, items)
    numbers = recorder.record()
    assert numbers["purity_train/a"] == numbers["purity_validation/a"] == numbers["probe/a"] == 1
    assert numbers["purity_train/b"] == pytest.approx(1 / 3)
    assert numbers["probe/b"] == pytest.approx(1 / 3)


def test_the_order_of_modalities_does_not_matter() -> None:
    recorder, balancer = recorded(Problem(3), epochs=1)
    model = balancer.model
    names = list(reversed(model.modalities))
    net = {m: model.encoders[m] for m in names}
    fusion = Concat({m: model.widths[m] for m in names}, 3)
    fusion.linear.bias = model.fusion.linear.bias  # type: ignore[assignment, union-attr]
    columns = model.fusion.weights()  # type: ignore[operator]
    fusion.linear.weight.data = torch.cat([columns[m] for m in names], 1).detach()
    turned = Balancer(Multimodal(net, fusion), task=balancer.task)
    loaders: list[Iterable[Any]] = list(recorder.loaders.values())
    one, other = (Recorder(b, *loaders).record() for b in (balancer, turned))
    assert one.keys() == other.keys()
    assert all(one[k] == pytest.approx(other[k], rel=1e-4) for k in one)


# ── what is absent, and what is left alone ──────────────────────────────────────────────────────


def test_what_cannot_be_measured_is_absent() -> None:
    problem = Problem()
    balancer = Balancer(problem.model(), task=Classification(3))
    recorder = Recorder(balancer)
    assert recorder.record() == {}
    assert recorder.dynamics.curves == {}
    numbers = Recorder(balancer, problem.loader()).record()
    names = {k.split("/")[0] for k in numbers}
    assert names == {*(f"{name}_train" for name in BY_SPLIT), "purity_train"}


@pytest.mark.parametrize(
    ("task", "kind", "lacks"),
    [
        ("Classification", "sequence", set()),
        ("Classification", "adopted", set()),
        ("MultiLabel", "vector", set()),
        ("Regression", "vector", {"purity_train", "purity_validation"}),
        ("Dense", "dense", {"purity_train", "purity_validation", "probe"}),
    ],
)
def test_every_task_and_kind_of_network(task: str, kind: str, lacks: set[str]) -> None:
    recorder, _ = recorded(Problem(3, task, kind), epochs=3)
    every = {f"{name}_{split}" for name in BY_SPLIT for split in ("train", "validation")}
    every |= {*BY_UPDATE, "purity_train", "purity_validation", "probe", "overfitting_ratio"}
    dynamics = recorder.dynamics
    assert dynamics.curves.keys() == every - lacks
    lengths = {len(x) for by in dynamics.curves.values() for x in by.values()}
    assert lengths == {3}
    assert dynamics.epochs == (0, 1, 2)
    assert all(list(by) == ["audio", "video", "text"] for by in dynamics.curves.values())


def test_a_negative_r2_has_no_part() -> None:
    balancer = Problem(task="Regression").balancer(Method())
    balancer.model.fusion.linear.bias.data.fill_(100.0)  # type: ignore[union-attr]
    recorder = Recorder(balancer)
    numbers = recorder.record()
    assert numbers["metric_validation/audio"] < 0
    assert "utilisation_validation" not in recorder.dynamics.curves


def test_features_that_are_not_numbers() -> None:
    problem = Problem()
    balancer = problem.balancer(Method())
    recorder = Recorder(balancer, problem.loader())
    recorder.record()
    balancer.model.encoders["audio"][0].weight.data.fill_(math.nan)  # type: ignore[index]
    recorder.record()
    plain = recorder.to_json()
    assert plain["curves"]["loss_train"]["audio"][1] is None
    assert plain["curves"]["purity_train"]["audio"][1] is None
    assert plain["curves"]["purity_train"]["video"][1] is not None
    json.dumps(plain, allow_nan=False)


def test_recording_changes_nothing() -> None:
    problem = Problem(random=True)
    found = []
    for watched in (False, True):
        torch.manual_seed(0)
        balancer = problem.balancer(OGMGE())
        optimizer = sgd(balancer)
        recorder = Recorder(balancer, problem.loader())
        if watched:
            recorder.attach()
        for _ in range(2):
            for _ in steps(balancer, optimizer, problem.loader()):
                pass
            if watched:
                recorder.record()
        found.append((state(balancer), torch.get_rng_state()))
    (weights, draws), (others, other_draws) = found
    assert all(torch.equal(weights[k], others[k]) for k in weights)
    assert torch.equal(draws, other_draws)


def test_after_detaching_no_step_is_measured() -> None:
    problem = Problem()
    balancer = problem.balancer(Method())
    optimizer = sgd(balancer)
    recorder = Recorder(balancer)
    recorder.attach(optimizer)
    recorder.attach(optimizer)  # again: the steps are counted once all the same
    for _ in steps(balancer, optimizer, problem.loader()):
        pass
    recorder.record()
    recorder.detach()
    for _ in steps(balancer, optimizer, problem.loader()):
        pass
    recorder.record()
    norms = recorder.dynamics.curves["gradient_norm"]["audio"]
    assert norms[0] is not None
    assert norms[1] is None


def test_the_measure_of_a_run() -> None:
    experiment = Experiment("latent2", epochs=2, data_options={"samples": 600})
    recording = Recording()
    with_it = train(experiment, measure=recording)
    without = train(experiment)
    assert with_it.last == without.last
    assert recording.recorder is not None
    dynamics = recording.recorder.dynamics
    assert None not in dynamics.curves["gradient_norm"]["hard"]  # from the first update on
    assert with_it.history[1]["probe/hard"] == dynamics.curves["probe"]["hard"][1]
    assert Dynamics.of_records(with_it.history, ("easy", "hard")) == dynamics
    assert Dynamics.of_records(without.history, ("easy", "hard")).epochs == ()
    with pytest.raises(RuntimeError, match="train"):
        Recording()(with_it.balancer, experiment.load())  # type: ignore[arg-type]


def test_a_recorder_goes_on_where_another_was() -> None:
    """The curves of a training that was cut, and a window that looks behind the cut."""
    problem = Problem()
    balancer = problem.balancer(Method())
    whole = Recorder(balancer, problem.loader(), every=2, window=2)
    parts = Recorder(balancer, problem.loader(), every=2, window=2)
    optimizer = sgd(balancer)
    for epoch in range(4):
        for _ in steps(balancer, optimizer, problem.loader()):
            pass
        whole.record()
        parts.record()
        if epoch == 1:
            plain = json.loads(json.dumps(parts.to_json()))
            earlier = Dynamics.from_json(plain)
            parts = Recorder(balancer, problem.loader(), every=2, window=2, earlier=earlier)
    assert parts.dynamics.epochs == (0, 1, 2, 3)
    assert parts.to_json() == whole.to_json()


def test_the_records_of_epochs() -> None:
    records = [
        {"epoch": 0, "loss": 1.0, "validation": {}},
        {"epoch": 1, "loss": 0.9, "probe/b": 0.5, "loss_train/a/b": 0.7, "mine/other": 1.0},
        {"epoch": 2, "loss": 0.8, "probe/b": 0.6, "probe/a/b": 0.4},
    ]
    found = Dynamics.of_records(records, ("a/b", "b"))
    assert found.epochs == (1, 2)
    assert found.curves == {
        "probe": {"a/b": (None, 0.4), "b": (0.5, 0.6)},
        "loss_train": {"a/b": (0.7, None)},
    }
    assert list(found.curves["probe"]) == ["a/b", "b"]


def test_json_and_onsets() -> None:
    recorder, _ = recorded(Problem(), epochs=3)
    plain = json.loads(json.dumps(recorder.to_json(), allow_nan=False))
    dynamics = Dynamics.from_json(plain)
    assert json.loads(json.dumps(dynamics.to_json())) == plain
    reached = dynamics.curves["probe"]["audio"]
    above = [x + 0.5 if x is not None and e else x for e, x in enumerate(reached)]
    assert dynamics.onsets({"audio": above, "video": [0.0]}) == {"audio": 1, "video": None}
    with pytest.raises(ValueError, match="Did you mean `audio`"):
        dynamics.onsets({"adio": above})
    with pytest.raises(ValueError, match="one that was recorded"):
        dynamics.onsets({"audio": above}, curve="accuracy")


def test_errors() -> None:
    balancer = Problem().balancer(Method())
    with pytest.raises(RuntimeError, match="Found none"):
        Recorder(balancer).attach()
    with pytest.raises(ValueError, match="`window` should be 1 or more"):
        Recorder(balancer, window=0)
