"""The whole diagnosis by other metrics, and of more modalities than all subsets can be asked of."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equivox as ev
from equivox.diagnosis.diagnose import Diagnosis, diagnose
from equivox.diagnosis.known_metrics import metrics_of
from equivox.diagnosis.metric import Metric
from equivox.diagnosis.reference import Reference
from equivox.model import Multimodal
from equivox.task import Classification, Dense, MultiLabel, Regression, Task

SIZES = {"train": 120, "validation": 60, "test": 250}
TARGETS = ("classes", "labels", "numbers", "positions")


def problem(kind: str, names: str = "ab") -> tuple[Task, dict[str, list[Any]]]:
    """A target that each modality shows a part of, with noise."""
    g = torch.Generator().manual_seed(0)
    loaders = {}
    for split, count in SIZES.items():
        hidden = torch.randn(count, 3, generator=g)
        noisy = {m: hidden + torch.randn(count, 3, generator=g) for m in names}
        if kind == "positions":
            noisy = {m: x[:, :, None, None].expand(-1, -1, 2, 3) for m, x in noisy.items()}
        loaders[split] = [(noisy, _target(kind, hidden), torch.arange(count))]
    return TASKS[kind], loaders


TASKS: dict[str, Task] = {
    "classes": Classification(3),
    "labels": MultiLabel(3),
    "numbers": Regression(1),
    "positions": Dense(3),
}


def _target(kind: str, hidden: Tensor) -> Tensor:
    if kind == "labels":
        return (hidden > 0).float()
    if kind == "numbers":
        return hidden[:, :1]
    classes = hidden.argmax(1)
    return classes[:, None, None].expand(-1, 2, 3).clone() if kind == "positions" else classes


class Passed(nn.Module):
    """Hands its inputs on."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def network(task: Task, names: str = "ab") -> ev.Balancer:
    """The sum of what the modalities show, which is nearly the best answer."""
    outputs = 1 if isinstance(task, Regression) else 3
    pool = not isinstance(task, Dense)
    fusion = ev.Concat(dict.fromkeys(names, 3), outputs, pool=pool)
    (linear,) = [m for m in fusion.modules() if isinstance(m, nn.Linear)]
    with torch.no_grad():
        linear.bias.zero_()
        linear.weight.copy_(torch.eye(3)[:outputs].repeat(1, len(names)) / len(names))
    return ev.Balancer(Multimodal({m: Passed() for m in names}, fusion), task=task)


def diagnosed(kind: str, names: str = "ab", **options: Any) -> Diagnosis:
    task, loaders = problem(kind, names)
    references = {m: Reference(network(task, m), 1, True) for m in names}
    found = diagnose(network(task, names), loaders, references=references, **options)
    json.dumps(found.to_json(), allow_nan=False)
    assert "Contributions" in found._repr_html_()
    return found


CASES = [(kind, name) for kind, task in TASKS.items() for name in list(metrics_of(task))[1:]]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_every_metric_of_every_task(kind: str, name: str) -> None:
    found = diagnosed(kind, metric=name)
    metric = metrics_of(TASKS[kind])[name]
    assert found.metric == metric.label
    head = found.headroom
    both, alone = head.joint.value, max(x.value for x in head.alone.values())
    assert both > alone > head.chance
    assert head.joint.low < both < head.joint.high
    zero = found.contributions["zero"]
    whole = zero.subsets["a + b"] - zero.subsets[""]
    assert sum(x.value for x in zero.values.values()) == pytest.approx(whole)
    assert zero.subsets["a + b"] == pytest.approx(both)
    robust = found.robustness["a"]
    assert robust.whole.value == pytest.approx(both)
    assert robust.disturbed.metric[-1].value < both
    assert all(found.use[m].drop.low > 0 for m in "ab")
    assert found.metric.lower() in str(found).lower()


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_no_samples_are_no_numbers(kind: str, name: str) -> None:
    """Where all targets are equal, no pair of samples has different ones."""
    task, loaders = problem(kind)
    inputs, target, _ = loaders["test"][0]
    metric = metrics_of(task)[name]
    logits = network(task).predict(inputs)
    found = metric.estimate(metric.parts(logits[:0], target[:0]))
    assert all(math.isnan(x) for x in (found.value, found.low, found.high))


def test_a_single_class_is_told_by_any_metric() -> None:
    task, loaders = problem("classes")
    (inputs, target, index) = loaders["test"][0]
    loaders["test"] = [(inputs, torch.ones_like(target), index)]
    references = {m: Reference(network(task, m), 1, True) for m in "ab"}
    found = diagnose(network(task), loaders, references=references, metric="f1")
    assert "a single target value: [1]" in found.verdict.reasons[0]


def test_the_verdict_stays_by_the_usual_metric_where_the_thresholds_do_not_apply() -> None:
    usual = diagnosed("classes")
    loss, f1 = (diagnosed("classes", metric=name) for name in ("loss", "f1"))
    assert (usual.metric, loss.metric, f1.metric) == ("accuracy", "negative loss", "macro F1")
    assert loss.verdict == usual.verdict and loss.verdict.metric == "accuracy"
    assert f1.verdict.metric == "macro F1" and f1.verdict.gain == f1.headroom.gain
    assert loss.headroom.joint.value < 0
    assert loss.routing == f1.routing == usual.routing
    assert loss.hurt == usual.hurt


def test_a_metric_of_your_own() -> None:
    def kappa(logits: Tensor, target: Tensor) -> Tensor:
        hit = (logits.argmax(1) == target).double().mean()
        expected = (logits.argmax(1).bincount(minlength=3) * target.bincount(minlength=3)).sum()
        chance = expected / len(target) ** 2
        return (hit - chance) / (1 - chance)

    found = diagnosed("classes", metric=Metric("kappa", "Cohen's kappa", kappa, mean=False))
    assert found.metric == "Cohen's kappa" and found.headroom.chance == pytest.approx(0, abs=1e-6)
    assert 0 < found.headroom.joint.low < found.headroom.joint.value


def test_a_metric_unknown_to_the_task_is_refused_before_the_work() -> None:
    task, loaders = problem("numbers")
    with pytest.raises(ValueError, match=r"`Regression`: r2, mae, loss\. Found `f1`"):
        diagnose(network(task), loaders, metric="f1")
    with pytest.raises(ValueError, match=r"Found `mea`\. Did you mean `mae`"):
        diagnose(network(task), loaders, metric="mea")


def test_ten_modalities_are_sampled_everywhere() -> None:
    names = "abcdefghij"
    found = diagnosed("classes", names)
    for each in found.contributions.values():
        assert each.sampled and set(each.values) == set(names)
        assert each.subsets[""] < each.subsets[" + ".join(names)]
        total = sum(x.value for x in each.values.values())
        assert total == pytest.approx(each.subsets[" + ".join(names)] - each.subsets[""])
    for part in (found.use, found.robustness, found.probes, found.calibration.violations):
        assert set(part) == set(names)
    assert " + ".join(names) in found.calibration.error
    assert "sampled" in str(found) and "sampled" in found._repr_html_()
    assert "sampled" not in str(diagnosed("classes"))
