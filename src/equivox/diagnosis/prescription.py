"""What to do: baselines first, then methods, each with the signal that suggests it.

The rules are a table, in which simple baselines come before methods, and both stand in the order of
what they gained for their cost on data with known answers. What to expect here is that share of
what the late fusion gains.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from equivox import methods
from equivox.diagnosis.metric import Estimate
from equivox.diagnosis.verdict import BALANCED, IMBALANCED, UNSURE, Verdict, limit
from equivox.randomness import preserved_random_state

if TYPE_CHECKING:
    from equivox.balancer import Balancer
    from equivox.diagnosis.conflict import Conflict
    from equivox.method import Method


Room = tuple[float, float]
"""What a metric can fall (negative) and rise by."""


@dataclass(frozen=True)
class Advice:
    """A thing to do.

    Attributes: `method`, its key in the registry, or "" for none; `what` to do; `signal`, what
    suggests it; `lines` to change; `cost` of a step relative to plain training, by
    `docs/results/step_cost.md` where encoders take the time; `not_if`, when it is the wrong thing;
    `gain`, what to expect of it over the network, in the verdict's metric, and None where nobody
    knows, or a late fusion gains nothing that it could be a share of.
    """

    method: str
    what: str
    signal: str
    lines: str
    cost: str
    not_if: str
    gain: Estimate | None = None

    def to_json(self) -> dict[str, Any]:
        """The advice in plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Case:
    """What advice is given for."""

    verdict: Verdict
    balancer: Balancer
    conflict: Conflict | None
    room: Room

    @property
    def imbalanced(self) -> bool:
        """Whether a modality is neglected or held back."""
        return self.verdict.kind == IMBALANCED

    @property
    def late_fusion_wins(self) -> bool:
        """Whether nobody is blamed, and a late fusion is better than a trained network."""
        gain, unsure = self.verdict.gain, self.verdict.kind == UNSURE and not self.verdict.underfits
        return unsure and gain.low > 0 and gain.value >= limit("harm")

    @property
    def ignored_only(self) -> bool:
        """Whether the fusion ignores what an encoder has learned, and it costs something."""
        known = self.verdict.modalities.values()
        some = any(m.ignored and not m.under_trained for m in known)
        return some and (self.imbalanced or self.late_fusion_wins)

    @property
    def conflicts(self) -> dict[str, float]:
        """The share of the batches in conflict, of encoders where it is more than chance."""
        found = self.conflict.encoders if self.conflict else {}
        return {m: a.share.value for m, a in found.items() if a.share.value >= limit("conflict")}


Shares = tuple[float, float, float]
"""The least, the median and the most of what a late fusion gained that a method gained, by
`docs/results/verdict_cases.md`."""


@dataclass(frozen=True)
class Rule:
    """An advice, when it is given, and what share of a late fusion's gain it had."""

    when: Callable[[Case], bool]
    advice: Advice
    shares: Shares | None = None


def _balancer_lines(method: str, more: str = "") -> str:
    return f"balancer = ev.Balancer(model, ev.{method}, task=task{more})"


RULES = (
    Rule(
        lambda case: case.verdict.kind == BALANCED and not case.verdict.synergistic,
        Advice(
            "", "Nothing: keep joint training.",
            "nobody is neglected or held back, and a late fusion gains nothing that counts", "",
            "1.00", "",
        ),
    ),
    Rule(
        lambda case: case.verdict.synergistic,
        Advice(
            "", "Keep joint training, and look at the fusion: its capacity is what limits.",
            "no modality says anything alone, together they do", "", "1.00",
            "a method that trains modalities alone would teach them noise",
        ),
    ),
    Rule(
        lambda case: case.verdict.underfits,
        Advice(
            "", "Train the network for longer, or with another learning rate, and diagnose again.",
            "on the training data it is worse than one modality alone", "", "1.00", "",
        ),
    ),
    Rule(
        lambda case: case.verdict.kind == UNSURE and not case.verdict.underfits,
        Advice(
            "", "Nothing yet: first what stands in the way of a verdict, see its reasons.",
            "the verdict is that nothing can be told", "", "1.00", "",
        ),
    ),
    Rule(
        lambda case: case.imbalanced,
        Advice(
            "unimodal_losses", "Add a loss for each modality: the simplest cure.",
            "an encoder's probe is below that of the same encoder alone",
            _balancer_lines("UnimodalLosses()"), "1.01",
            "a modality is pure noise, or the answer lies in the combination alone",
        ),
        (0.3, 0.77, 0.84),
    ),
    Rule(
        lambda case: case.imbalanced or case.late_fusion_wins,
        Advice(
            "ensemble", "Train the modalities apart and average them: what is to be beaten.",
            "a late fusion of the unimodal models is better than the network",
            _balancer_lines("Ensemble()", ", validation=validation"), "1.01",
            "modalities must interact",
        ),
        (0.42, 0.72, 0.99),
    ),
    Rule(
        lambda case: case.imbalanced and bool(case.conflicts),
        Advice(
            "mmpareto", "Unimodal losses whose gradients do not fight the fusion's.",
            "an encoder falls short, and gradients conflict: {conflict}",
            _balancer_lines("MMPareto()"), "1.77", "a second backward pass is too much",
        ),
        (0.27, 0.85, 0.9),
    ),
    Rule(
        lambda case: bool(case.verdict.neglected),
        Advice(
            "mmcosine", "Give every modality equal norms in the last layer.",
            "the fusion reads one modality far more than it knows more",
            _balancer_lines("MMCosine()"), "1.01", "regression; an adopted network",
        ),
        (-0.14, 0.41, 0.82),
    ),
    Rule(
        lambda case: bool(case.verdict.neglected),
        Advice(
            "ogm_ge", "Slow the leading encoder down; no new parameters.",
            "one modality is exchanged without effect while another decides",
            _balancer_lines("OGMGE(alpha=0.5)"), "1.03",
            "the leading modality is simply the more informative one, where it lost; Adam",
        ),
        (-2.99, 0.2, 0.56),
    ),
    Rule(
        lambda case: case.ignored_only,
        Advice(
            "modality_dropout", "Drop modalities in training, so that none can be leaned on alone.",
            "an encoder has learned enough, and the fusion does not listen",
            _balancer_lines("ModalityDropout(p=0.3)"), "1.01", "the task is synergistic",
        ),
    ),
)  # fmt: skip


def prescribe(
    found: Verdict,
    balancer: Balancer,
    conflict: Conflict | None = None,
    room: Room = (-math.inf, math.inf),
) -> Sequence[Advice]:
    """The advice whose rule holds, in the order of the table.

    Without methods that are not for this task or network, or that it was trained with already.

    :param conflict: That of the network's gradients, where it was measured.
    :param room: How far the network's metric can fall and rise.
    """
    case = Case(found, balancer, conflict, room)
    rules = (rule for rule in RULES if rule.when(case))
    return [_told(rule, case) for rule in rules if _fits(rule.advice.method, balancer)]


def _told(rule: Rule, case: Case) -> Advice:
    """The advice with what was measured here."""
    conflicts = case.conflicts.items()
    said = ", ".join(f"in {share:.0%} of the batches in `{m}`" for m, share in conflicts)
    shares, gain = rule.shares, case.verdict.gain
    return replace(
        rule.advice,
        signal=rule.advice.signal.format(conflict=said),
        gain=expected(gain, shares, case.room) if shares and gain.value > 0 else None,
    )


def expected(gain: Estimate, shares: Shares, room: Room = (-math.inf, math.inf)) -> Estimate:
    """A share of a gain where neither is known exactly: from the least to the most of both.

    :param room: It cannot be outside of this.

    >>> expected(Estimate(0.04, 0.02, 0.06), (0.5, 0.75, 1.5))
    Estimate(value=0.03, low=0.01, high=0.09)
    """
    ends = [end * share for end in (gain.low, gain.high) for share in shares]
    least, most = room
    found = (gain.value * shares[1], min(ends), max(ends))
    return Estimate(*(min(max(x, least), most) for x in found))


def _fits(key: str, balancer: Balancer) -> bool:
    """Whether a new training with this method could begin."""
    if not key:
        return True
    kind = methods.get(key)
    kinds = {each.__name__ for each in type(balancer.task).__mro__}
    if not kinds & set(kind.tasks) or any(type(part) is kind for part in balancer.method.modules()):
        return False
    return not kind.replaces_fusion or _replaceable(kind(), balancer)


def _replaceable(method: Method, balancer: Balancer) -> bool:
    """Whether a method that needs a certain fusion finds it."""
    with preserved_random_state():
        try:
            method.setup(copy.deepcopy(balancer.model), balancer.task)
        except ValueError:
            return False
    return True
