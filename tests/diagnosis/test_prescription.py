from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import equivox as ev
from equivox.diagnosis.conflict import Agreement, Conflict
from equivox.diagnosis.metric import Estimate
from equivox.diagnosis.prescription import RULES, Advice, expected, prescribe
from equivox.diagnosis.verdict import BALANCED, IMBALANCED, UNSURE, Neglect, Verdict
from equivox.method import Method
from equivox.model import Multimodal
from equivox.task import Classification, Dense, MultiLabel, Regression, Task

GAIN, NONE = Estimate(0.05, 0.03, 0.07), Estimate(0.0, -0.01, 0.01)


def found(
    kind: str,
    *,
    gain: Estimate = NONE,
    under_trained: bool = False,
    ignored: bool = False,
    synergistic: bool = False,
    held_back: bool = False,
    underfits: bool = False,
) -> Verdict:
    known = Neglect("b", GAIN, 0.3, 0.3, under_trained, ignored, True)
    blamed = ("b",) if kind == IMBALANCED else ()
    neglected, held = ((), blamed) if held_back else (blamed, ())
    reasons, each = ("because",), {"b": known}
    return Verdict(kind, neglected, synergistic, gain, reasons, each, held, underfits=underfits)


def conflicting(share: float) -> Conflict:
    a, b = (Agreement(NONE, Estimate(x, x, x), NONE) for x in (0.0, share))
    return Conflict({"a": a, "b": b}, {}, own_heads=False, batches=20)


def balancer(task: Task | None = None, method: Method | None = None) -> ev.Balancer:
    encoders = {m: nn.Linear(3, 4) for m in ("a", "b")}
    model = Multimodal(encoders, ev.Concat({"a": 4, "b": 4}, 2))
    return ev.Balancer(model, method, task=task or Classification(2))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(8, 2)

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        return self.last(torch.cat([self.a(x["a"]), self.b(x["b"])], 1))


EVERY = ["unimodal_losses", "ensemble", "mmpareto", "mmcosine", "ogm_ge"]


def methods(advices: list[Advice]) -> list[str]:
    return [advice.method for advice in advices]


NEGLECT = found(IMBALANCED, gain=GAIN, under_trained=True, ignored=True)


def test_the_simple_baselines_come_before_any_method() -> None:
    listed = methods(list(prescribe(NEGLECT, balancer(), conflicting(0.3))))
    assert listed == EVERY


def test_gradients_that_do_not_conflict_need_no_pareto() -> None:
    for measured in (None, conflicting(0.05)):
        assert "mmpareto" not in methods(list(prescribe(NEGLECT, balancer(), measured)))
    advices = {a.method: a for a in prescribe(NEGLECT, balancer(), conflicting(0.3))}
    assert advices["mmpareto"].signal.endswith("in 30% of the batches in `b`")


def test_what_is_held_back_is_listened_to() -> None:
    held = found(IMBALANCED, gain=GAIN, under_trained=True, held_back=True)
    listed = methods(list(prescribe(held, balancer(), conflicting(0.3))))
    assert listed == ["unimodal_losses", "ensemble", "mmpareto"]


def test_the_expected_gain_is_a_share_of_the_late_fusions() -> None:
    for rule in (rule for rule in RULES if rule.shares):
        (advice,) = [
            a for a in prescribe(NEGLECT, balancer(), conflicting(0.3))
            if a.method == rule.advice.method
        ]  # fmt: skip
        least, mean, most = rule.shares or (0.0, 0.0, 0.0)
        assert least <= mean <= most
        assert advice.gain == expected(GAIN, (least, mean, most))
    doubtful = expected(Estimate(0.01, -0.02, 0.04), (0.5, 1.0, 1.5))
    assert (doubtful.low, doubtful.high) == pytest.approx((-0.03, 0.06))
    assert prescribe(found(BALANCED), balancer())[0].gain is None


@pytest.mark.parametrize("value", [-0.02, 0.0, float("nan")])
def test_nothing_is_expected_where_a_late_fusion_gains_nothing(value: float) -> None:
    known = Estimate(value, value - 0.01, value + 0.01)
    none = found(IMBALANCED, gain=known, under_trained=True, ignored=True)
    listed = prescribe(none, balancer(), conflicting(0.3))
    assert methods(list(listed)) == EVERY and all(advice.gain is None for advice in listed)


def test_the_expected_gain_stays_within_what_the_metric_allows() -> None:
    ogm = {a.method: a for a in prescribe(NEGLECT, balancer(), room=(-0.1, 0.03))}["ogm_ge"]
    assert ogm.gain == Estimate(GAIN.value * 0.2, -0.1, 0.03)
    assert expected(Estimate(0.2, 0.1, 0.3), (1.0, 2.0, 3.0), (-0.8, 0.2)) == Estimate(
        0.2, 0.1, 0.2
    )


def test_an_under_trained_network_is_trained_first() -> None:
    short = found(UNSURE, gain=GAIN, under_trained=True, ignored=True, underfits=True)
    (advice,) = prescribe(short, balancer())
    assert advice.method == "" and "Train the network for longer" in advice.what


def test_balanced_is_left_alone() -> None:
    (advice,) = prescribe(found(BALANCED, gain=GAIN, ignored=True), balancer())
    assert advice.method == "" and "Nothing" in advice.what


def test_synergy_is_left_alone() -> None:
    (advice,) = prescribe(found(BALANCED, synergistic=True), balancer())
    assert advice.method == "" and "fusion" in advice.what and advice.not_if


def test_unsure_is_cleared_up_first() -> None:
    assert methods(list(prescribe(found(UNSURE), balancer()))) == [""]
    listed = list(prescribe(found(UNSURE, gain=GAIN, ignored=True), balancer()))
    assert methods(listed) == ["", "ensemble", "modality_dropout"]
    assert "Nothing yet" in listed[0].what


@pytest.mark.parametrize(
    ("task", "missing"),
    [(Classification(2), set()), (MultiLabel(2), set()), (Regression(2), {"mmcosine"})],
)
def test_what_is_not_for_the_task_is_left_out(task: Task, missing: set[str]) -> None:
    listed = prescribe(NEGLECT, balancer(task), conflicting(0.3))
    assert set(methods(list(listed))) == set(EVERY) - missing


def test_what_cannot_act_on_an_adopted_network_is_left_out() -> None:
    example = {m: torch.randn(4, 3) for m in ("a", "b")}
    model = Multimodal.from_model(Plain(), {"a": "a", "b": "b"}, example)
    adopted = ev.Balancer(model, task=Classification(2))
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert "mmcosine" not in methods(list(prescribe(NEGLECT, adopted)))
    assert all(torch.equal(before[k], x) for k, x in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_what_it_was_trained_with_is_left_out() -> None:
    chained = ev.Chain(ev.OGMGE(), ev.UnimodalLosses())
    for method in (ev.OGMGE(), chained):
        assert "ogm_ge" not in methods(list(prescribe(NEGLECT, balancer(method=method))))
    assert "unimodal_losses" not in methods(list(prescribe(NEGLECT, balancer(method=chained))))


def test_the_lines_run() -> None:
    for advice in (rule.advice for rule in RULES if rule.advice.lines):
        names = {"ev": ev, "model": balancer().model, "task": Classification(2), "validation": []}
        exec(advice.lines, names)
        assert isinstance(names["balancer"], ev.Balancer)
        assert type(names["balancer"].method) is ev.methods.get(advice.method)
        assert float(advice.cost) >= 1 and advice.signal and advice.not_if


def test_dense_gets_advice() -> None:
    nets = {m: nn.Conv2d(1, 4, 1) for m in ("a", "b")}
    model = Multimodal(nets, ev.Concat({"a": 4, "b": 4}, 2, pool=False))
    dense = ev.Balancer(model, task=Dense(2))
    assert methods(list(prescribe(NEGLECT, dense)))[0] == "unimodal_losses"


def test_costs_are_those_that_were_measured() -> None:
    results = Path(__file__).parents[2] / "docs" / "results" / "step_cost.json"
    rows = json.loads(results.read_text())["rows"]
    measured = {row["method"]: row["ratio"] for row in rows if row["load"] == "compute"}
    for method, cost in {r.advice.method: float(r.advice.cost) for r in RULES}.items():
        assert cost == pytest.approx(measured.get(method, 1.0), abs=0.03), method


def test_shares_are_those_that_were_measured() -> None:
    results = Path(__file__).parents[2] / "docs" / "results" / "verdict_cases.json"
    measured = json.loads(results.read_text())["shares"]
    assert {r.advice.method: list(r.shares) for r in RULES if r.shares} == measured
