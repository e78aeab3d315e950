"""What to do: baselines first, then methods, each with the signal that suggests it.

The rules are a table. What a method can be expected to gain is bounded from below by what a late
fusion gains over the network, which the verdict states; the order here is by cost and by the
evidence of `docs/results`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from equivox import methods
from equivox.diagnosis.verdict import BALANCED, IMBALANCED, UNSURE, Verdict, limit
from equivox.randomness import preserved_random_state

if TYPE_CHECKING:
    from equivox.balancer import Balancer
    from equivox.method import Method


@dataclass(frozen=True)
class Advice:
    """A thing to do.

    Attributes: `method`, its key in the registry, or "" for none; `what` to do; `signal`, what
    suggests it; `lines` to change; `cost` of a step relative to plain training, by
    `docs/results/step_cost.md` where encoders take the time; `not_if`, when it
    is the wrong thing.
    """

    method: str
    what: str
    signal: str
    lines: str
    cost: str
    not_if: str

    def to_json(self) -> dict[str, Any]:
        """The advice in plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Rule:
    """An advice and when it is given."""

    when: Callable[[Verdict, Balancer], bool]
    advice: Advice


def _neglect(found: Verdict, _: Balancer) -> bool:
    return found.kind == IMBALANCED


def _late_fusion_wins(found: Verdict, _: Balancer) -> bool:
    return found.kind == UNSURE and found.gain.low > 0 and found.gain.value >= limit("harm")


def _ignored_only(found: Verdict, balancer: Balancer) -> bool:
    """The fusion ignores what an encoder has learned, and it costs something."""
    some = any(m.ignored and not m.under_trained for m in found.modalities.values())
    return some and (_neglect(found, balancer) or _late_fusion_wins(found, balancer))


def _balancer_lines(method: str, more: str = "") -> str:
    return f"balancer = ev.Balancer(model, ev.{method}, task=task{more})"


RULES = (
    Rule(
        lambda found, _: found.kind == BALANCED and not found.synergistic,
        Advice(
            "", "Nothing: keep joint training.",
            "no encoder falls short, and a late fusion is not better", "", "1.00", "",
        ),
    ),
    Rule(
        lambda found, _: found.synergistic,
        Advice(
            "", "Keep joint training, and look at the fusion: its capacity is what limits.",
            "no modality says anything alone, together they do", "", "1.00",
            "a method that trains modalities alone would teach them noise",
        ),
    ),
    Rule(
        lambda found, _: found.kind == UNSURE,
        Advice(
            "", "Nothing yet: first what stands in the way of a verdict, see its reasons.",
            "the verdict is that nothing can be told", "", "1.00", "",
        ),
    ),
    Rule(
        _neglect,
        Advice(
            "unimodal_losses", "Add a loss for each modality: the simplest cure.",
            "an encoder's probe is below that of the same encoder alone",
            _balancer_lines("UnimodalLosses()"), "1.01",
            "a modality is pure noise, or the answer lies in the combination alone",
        ),
    ),
    Rule(
        lambda found, balancer: _neglect(found, balancer) or _late_fusion_wins(found, balancer),
        Advice(
            "ensemble", "Train the modalities apart and average them: what is to be beaten.",
            "a late fusion of the unimodal models is better than the network",
            _balancer_lines("Ensemble()", ", validation=validation"), "1.01",
            "modalities must interact",
        ),
    ),
    Rule(
        _neglect,
        Advice(
            "ogm_ge", "Slow the leading encoder down; no new parameters.",
            "one modality is exchanged without effect while another decides",
            _balancer_lines("OGMGE(alpha=0.5)"), "1.03",
            "the leading modality is simply the more informative one; Adam",
        ),
    ),
    Rule(
        _neglect,
        Advice(
            "mmpareto", "Unimodal losses whose gradients do not fight the fusion's.",
            "unimodal losses help, and gradients conflict",
            _balancer_lines("MMPareto()"), "1.77", "a second backward pass is too much",
        ),
    ),
    Rule(
        _neglect,
        Advice(
            "mmcosine", "Give every modality equal norms in the last layer.",
            "the fusion reads one modality far more than it knows more",
            _balancer_lines("MMCosine()"), "1.01", "regression; an adopted network",
        ),
    ),
    Rule(
        _ignored_only,
        Advice(
            "modality_dropout", "Drop modalities in training, so that none can be leaned on alone.",
            "an encoder has learned enough, and the fusion does not listen",
            _balancer_lines("ModalityDropout(p=0.3)"), "1.01", "the task is synergistic",
        ),
    ),
)  # fmt: skip


def prescribe(found: Verdict, balancer: Balancer) -> Sequence[Advice]:
    """The advice whose rule holds, in the order of the table.

    Without methods that are not for this task or network, or that it was trained with already.
    """
    rules = (rule for rule in RULES if rule.when(found, balancer))
    return [rule.advice for rule in rules if _fits(rule.advice.method, balancer)]


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
