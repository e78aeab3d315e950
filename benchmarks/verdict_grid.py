"""How often the verdict of `diagnose` is right: generated cases whose truth is known.

    python benchmarks/verdict_grid.py --out docs/results [--cases 240] [--jobs 2]
    python benchmarks/verdict_grid.py --out docs/results --sweep

Every case is a small latent Gaussian data set, a network trained on it and its diagnosis. The truth
is what the case was built to be, and for balanced, weak, under-trained and shortcut cases it is
checked: linear probes are fitted on 2,000 further samples and read on 5,000 others, against the
same encoder trained alone anew, and a gap is real from 0.02 on. Synergistic cases must have been
learned. Unfinished ones are balanced networks whose training was cut short, one a round: a whole
one must be better by 0.05. A case whose construction did not come off is reported as "not
produced", and never counted as anything else.

One line a finished case goes to `verdict_grid.jsonl`, so that a cut run goes on where it was. Each
holds the evidence of its verdict: the table is made by the rules as they are now, and `--sweep`
varies one threshold after another, without training anything. The thresholds were chosen on the
first eight rounds of the grid, before the others were run, which confirm them; but for "listening",
which was lowered when the late fusion became a product, the rule of being held back, which came
from `benchmarks/verdict_cases.py`, and "moves" and "underfit": these were made with all rounds
known.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivox.balancer import Balancer
from equivox.bench.processes import workers
from equivox.data.base import MultimodalData, Samples, divide
from equivox.data.latent import LatentModality, latent, xor
from equivox.diagnosis.diagnose import Diagnosis, diagnose
from equivox.diagnosis.headroom import Headroom
from equivox.diagnosis.metric import Estimate
from equivox.diagnosis.probes import Probe, Split, probe
from equivox.diagnosis.reference import optimizer_like, renewed, trained_alone
from equivox.diagnosis.use import Use
from equivox.diagnosis.verdict import (
    BALANCED,
    IMBALANCED,
    THRESHOLDS,
    Evidence,
    Verdict,
    verdict,
)
from equivox.encoders import MLP
from equivox.fusion import FUSIONS
from equivox.model import Multimodal

REAL = 0.02
"""A gap of the large-sample probe from which on an encoder is under-trained in truth."""

LEARNED = 0.6
"""The accuracy from which on parity, whose chance is a half, was learned."""

SHORT = 0.05
"""The accuracy from which on a whole training is better than one that was cut short."""

FIT, HELD = 2000, 5000
"""Further samples on which the truth's probes are fitted, and on which they are read."""

BALANCED_CASE, WEAK, UNDER, SHORTCUT = "balanced", "weak", "under-trained", "shortcut"
NOISE, REDUNDANT, SYNERGISTIC, LEAK = "noise", "redundant", "synergistic", "leak"
UNFINISHED = "unfinished"
SHARES = {
    BALANCED_CASE: 2,
    WEAK: 2,
    UNDER: 3,
    SHORTCUT: 1,
    NOISE: 1,
    REDUNDANT: 1,
    SYNERGISTIC: 1,
    LEAK: 1,
}
"""How many cases of a truth a round of the grid has."""

CHOSE = 8
"""So many rounds chose the thresholds; the others confirm them."""

BOUNDS = {"false alarms": 0.05, "detection": 0.90}


# ── the cases ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Case:
    """One generated data set.

    Attributes: `truth`, what it is built to be; `round` of the grid; `seed` of data and training;
    `specs`, `LatentModality` arguments by name; `planted`, the modality that the truth is about,
    empty for none.
    """

    truth: str
    round: int
    seed: int
    classes: int
    samples: int
    specs: Mapping[str, Mapping[str, Any]]
    planted: str = ""

    @property
    def key(self) -> str:
        """Its name in the file of lines."""
        return f"{self.truth} {self.seed}"


def grid(count: int) -> list[Case]:
    """The first cases, round by round."""
    per_round = [truth for truth, share in SHARES.items() for _ in range(share)]
    seeds: Counter[str] = Counter()
    cases = []
    for number in range(count):
        truth = per_round[number % len(per_round)]
        cases.append(drawn(truth, number // len(per_round), seeds[truth]))
        seeds[truth] += 1
    return cases


def unfinished(count: int) -> list[Case]:
    """As many networks with modalities alike whose training is cut short; see `pace`."""
    return [drawn(UNFINISHED, seed, seed) for seed in range(count)]


Pace = tuple[float, int | None]
"""The share of the recipe's learning rate, and the epochs, None for the recipe's."""

WHOLE: Pace = (1.0, None)


def pace(case: Case) -> Pace:
    """How fast and how long a case is trained."""
    if case.truth != UNFINISHED:
        return WHOLE
    rng = random.Random(f"pace {case.seed}")
    return rng.choice((0.02, 0.05, 0.1)), rng.choice((1, 2, 3))


def drawn(truth: str, round_: int, seed: int) -> Case:
    """A case with settings at random; the numbers of modalities take turns."""
    rng = random.Random(f"{truth} {seed}")
    many = (2, 3, 2, 4, 3, 2)[(round_ // 2 + seed) % 6]
    classes = 2 if truth == SYNERGISTIC else rng.choice((3, 6, 10))
    specs, planted = SETTINGS[truth](rng, many, classes)
    names = list(specs)
    rng.shuffle(names)
    plain = {m: asdict(specs[m]) | {"hidden": list(specs[m].hidden)} for m in names}
    samples = rng.choice((2000, 2400, 2800))
    return Case(truth, round_, seed, classes, samples, plain, planted)


Specs = dict[str, LatentModality]


def _spec(rng: random.Random, classes: int, low: float, high: float, **more: Any) -> LatentModality:
    """A modality that is easy to learn, of a ceiling between these."""
    facts = {
        "ceiling": round(rng.uniform(low, high), 3),
        "dim": max(rng.choice((10, 12, 16)), classes),
        "scale": rng.choice((1.5, 2.0)),
        "hidden": rng.choice(((64, 32), (96, 32), (64, 48))),
    }
    return LatentModality(**(facts | more))


def _easy(rng: random.Random, classes: int) -> LatentModality:
    return _spec(rng, classes, 0.94, 0.98)


def _hard(rng: random.Random, classes: int) -> LatentModality:
    """Informative but slow: warped, and of a small scale."""
    settings = ((1, 2.0, 0.4), (1, 2.0, 0.6), (1, 2.0, 0.8), (1, 2.0, 1.0), (2, 1.6, 1.0))
    depth, power, scale = rng.choice(settings)
    warp = {"dim": 16, "depth": depth, "power": power, "scale": scale}
    hidden = rng.choice(((128, 128, 32), (96, 96, 32)))
    return _spec(rng, classes, 0.85, 0.92, hidden=hidden, **warp)


def _weak(rng: random.Random, classes: int) -> LatentModality:
    chance = 1 / classes
    return _spec(rng, classes, chance + 0.12, chance + 0.45, scale=rng.choice((1.0, 1.5, 2.0)))


def _balanced_case(rng: random.Random, many: int, classes: int) -> tuple[Specs, str]:
    """Modalities alike, from middling to clear."""
    ceiling, scale = rng.uniform(0.75, 0.96), rng.choice((1.0, 1.5, 2.0))
    alike = partial(_spec, rng, classes, ceiling - 0.01, ceiling + 0.01, scale=scale)
    return {f"equal{i}": alike() for i in range(many)}, ""


def _weak_case(rng: random.Random, many: int, classes: int) -> tuple[Specs, str]:
    """Strong ones that leave something to learn, or the weak one would stop to learn too."""
    strong = {f"easy{i}": _spec(rng, classes, 0.8, 0.95) for i in range(many - 1)}
    return strong | {"weak": _weak(rng, classes)}, "weak"


def _under_case(rng: random.Random, many: int, classes: int) -> tuple[Specs, str]:
    others = {f"other{i}": rng.choice((_easy, _weak))(rng, classes) for i in range(many - 2)}
    return {"easy": _easy(rng, classes), "hard": _hard(rng, classes)} | others, "hard"


def _shortcut_case(rng: random.Random, many: int, classes: int) -> tuple[Specs, str]:
    others = {f"weak{i}": _weak(rng, classes) for i in range(many - 2)}
    cut = _spec(rng, classes, 0.985, 0.995, scale=2.0)
    return {"cut": cut, "hard": _hard(rng, classes)} | others, "hard"


def _noise_case(rng: random.Random, many: int, classes: int) -> tuple[Specs, str]:
    signals = {f"easy{i}": _easy(rng, classes) for i in range(many - 1)}
    return signals | {"noise": replace(_easy(rng, classes), ceiling=None)}, "noise"


def _redundant_case(rng: random.Random, many: int, classes: int) -> tuple[Specs, str]:
    original = _spec(rng, classes, 0.75, 0.97)
    return {f"copy{i}": original for i in range(many)}, ""


def _synergistic_case(_rng: random.Random, many: int, _classes: int) -> tuple[Specs, str]:
    """The parity of hidden bits, whose specifications are `xor`'s own. Four are not learned."""
    return {f"m{i + 1}": LatentModality(0.5) for i in range(min(many, 3))}, ""


def _leak_case(rng: random.Random, many: int, classes: int) -> tuple[Specs, str]:
    specs = {f"easy{i}": _spec(rng, classes, 0.7, 0.95) for i in range(many - 1)}
    return specs | {"leaky": _spec(rng, classes, 0.7, 0.95)}, "leaky"


SETTINGS = {
    BALANCED_CASE: _balanced_case,
    WEAK: _weak_case,
    UNDER: _under_case,
    SHORTCUT: _shortcut_case,
    NOISE: _noise_case,
    REDUNDANT: _redundant_case,
    SYNERGISTIC: _synergistic_case,
    LEAK: _leak_case,
    UNFINISHED: _balanced_case,
}


# ── their data ──────────────────────────────────────────────────────────────────────────────────


def made(case: Case) -> tuple[MultimodalData, Samples]:
    """The three splits, and the further samples for the truth."""
    data = _generated(case)
    parts: list[Any] = [data.train, data.validation, data.test]
    inputs = {m: torch.cat([part.inputs[m] for part in parts]) for m in data.modalities}
    target = torch.cat([part.target for part in parts])
    inputs = _changed(case, inputs, target)
    n = case.samples
    own = {m: x[:n] for m, x in inputs.items()}
    train, validation, test = divide(own, target[:n], train=n // 2, validation=n // 10)
    rest = Samples({m: x[n:] for m, x in inputs.items()}, target[n:])
    encoders = {m: partial(MLP, x.shape[1], _hidden(case, m)) for m, x in inputs.items()}
    splits = replace(data, train=train, validation=validation, test=test)
    return replace(splits, architectures=encoders), rest


def _hidden(case: Case, modality: str) -> Sequence[int]:
    """The layers of an encoder; parity, which is hard enough, has the usual ones."""
    usual: Sequence[int] = (64, 32)
    return usual if case.truth == SYNERGISTIC else case.specs[modality]["hidden"]


def _generated(case: Case) -> MultimodalData:
    samples = case.samples + FIT + HELD
    if case.truth == SYNERGISTIC:
        return xor("xor", case.seed, modalities=len(case.specs), samples=samples)
    specs = {m: LatentModality(**spec) for m, spec in case.specs.items()}
    if case.truth == REDUNDANT:
        specs = dict(list(specs.items())[:1])
    options: Any = {"modalities": specs, "classes": case.classes, "samples": samples}
    return latent("latent", case.seed, **options)


def _changed(case: Case, inputs: dict[str, Tensor], target: Tensor) -> dict[str, Tensor]:
    """The inputs with what this truth does to them."""
    generator = torch.Generator().manual_seed(case.seed)
    if case.truth == SHORTCUT:
        return inputs | {"cut": _broken(inputs["cut"], case.samples // 2, generator)}
    if case.truth == REDUNDANT:
        (x,) = inputs.values()
        return {m: x @ _turn(x.shape[1], generator) for m in case.specs}
    if case.truth == LEAK:
        told = _told(case, target, generator)
        return inputs | {"leaky": torch.cat([inputs["leaky"], told], 1)}
    return inputs


def _broken(x: Tensor, begin: int, generator: torch.Generator) -> Tensor:
    """From a row on, half of them are exchanged: what held in training holds no longer."""
    rows = torch.arange(begin, len(x))
    rows = rows[torch.rand(len(rows), generator=generator) < 0.5]
    y = x.clone()
    y[rows] = x[rows[torch.randperm(len(rows), generator=generator)]]
    return y


def _turn(dim: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(dim, dim, generator=generator))[0]


def _told(case: Case, target: Tensor, generator: torch.Generator) -> Tensor:
    """Columns with the label: its number, its number with noise, or one a class."""
    how = case.seed % 3
    if how == 2:
        return F.one_hot(target, case.classes).float()
    noise = 0.05 * torch.randn(len(target), 1, generator=generator)
    return target[:, None].float() + (noise if how else 0.0)


# ── one case ────────────────────────────────────────────────────────────────────────────────────

Line = dict[str, Any]


def finished(case: Case) -> Line:
    """Train, diagnose, and measure the truth."""
    start = time.perf_counter()
    data, rest = made(case)
    balancer, parts = trained(case, data), loaders(case, data)
    found = diagnose(balancer, parts, seed=case.seed)
    line = {"key": case.key, "case": asdict(case), "evidence": written(found)}
    line |= {"true": truth(case, data, balancer, parts, rest)}
    return line | {"seconds": round(time.perf_counter() - start, 2)}


def loaders(case: Case, data: MultimodalData) -> dict[str, Any]:
    """The three splits, the training one in an order of its own."""
    order = torch.Generator().manual_seed(case.seed)
    held = {split: data.loader(split) for split in ("validation", "test")}
    return {"train": data.loader("train", generator=order)} | held


def trained(case: Case, data: MultimodalData, whole: bool = False) -> Balancer:
    """The network, by the recipe of the data; parity takes longer, and `pace` may cut it short."""
    torch.manual_seed(case.seed)
    fusion = FUSIONS[data.fusion](data.widths, data.outputs)
    model = Multimodal(data.encoders(), fusion)
    balancer = Balancer(model, task=data.task, seed=case.seed)
    recipe, (share, epochs) = data.recipe, WHOLE if whole else pace(case)
    optimizer = balancer.attach(
        torch.optim.SGD(
            balancer.parameters(),
            recipe.lr * share,
            recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
    )
    loader = data.loader("train", generator=torch.Generator().manual_seed(case.seed))
    usual = recipe.epochs * (3 if case.truth == SYNERGISTIC else 1)
    for _ in range(epochs or usual):
        balancer.train()
        for inputs, target, index in loader:
            balancer(inputs, target, index).backward()
            optimizer.step()
            optimizer.zero_grad()
    return balancer


def truth(
    case: Case, data: MultimodalData, balancer: Balancer, parts: Mapping[str, Any], rest: Samples
) -> dict[str, Any]:
    """What the further samples say.

    The gaps of the probes, how well parity is known, or what a whole training is better by.
    """
    if case.truth == SYNERGISTIC:
        return {"accuracy": round(_accuracy(balancer, rest), 4)}
    if case.truth == UNFINISHED:
        whole = trained(case, data, whole=True)
        return {"short": round(_accuracy(whole, rest) - _accuracy(balancer, rest), 4)}
    if case.truth not in (BALANCED_CASE, WEAK, UNDER, SHORTCUT):
        return {}
    asked = balancer.model.modalities if case.truth in (BALANCED_CASE, WEAK) else (case.planted,)
    return {"gaps": {m: _gap(m, case, balancer, parts, rest) for m in asked}}


def _accuracy(balancer: Balancer, rest: Samples) -> float:
    rows = balancer.collect(
        torch.utils.data.DataLoader(rest, 500, collate_fn=Samples.collate),
        lambda o, b: {"right": balancer.task.correct(o.logits, b.target)},
    )
    return float(rows["right"].double().mean())


def _gap(
    modality: str, case: Case, balancer: Balancer, parts: Mapping[str, Any], rest: Samples
) -> float:
    encoder, seed = balancer.model.encoders[modality], case.seed + 1000
    alone = trained_alone(
        renewed(encoder, seed),
        modality,
        balancer,
        parts["train"],
        parts["validation"],
        optimizer=optimizer_like(balancer.optimizer),
        seed=seed,
    )
    return round(
        _reads(alone.balancer.model.encoders[modality], modality, balancer, rest)
        - _reads(encoder, modality, balancer, rest),
        4,
    )


def _reads(encoder: torch.nn.Module, modality: str, balancer: Balancer, rest: Samples) -> float:
    """The accuracy of a linear probe of an encoder, on samples that it never saw."""
    with torch.no_grad():
        features = encoder(rest.inputs[modality])
    fit = Split(features[:FIT], rest.target[:FIT])
    held = Split(features[FIT:], rest.target[FIT:])
    return float(probe(balancer.task, fit, held).mean())


def produced(line: Line) -> bool:
    """Whether the case became what it was built to be."""
    case, true = line["case"], line["true"]
    if case["truth"] == SYNERGISTIC:
        return float(true["accuracy"]) >= LEARNED
    if case["truth"] == UNFINISHED:
        return float(true["short"]) >= SHORT
    if case["truth"] in (BALANCED_CASE, WEAK):
        return max(true["gaps"].values()) < REAL
    return case["truth"] not in (UNDER, SHORTCUT) or true["gaps"][case["planted"]] >= REAL


# ── its evidence, in a line ─────────────────────────────────────────────────────────────────────


def written(found: Diagnosis) -> dict[str, Any]:
    """What the verdict of a diagnosis was made from."""
    head = found.headroom
    facts: dict[str, Any] = {
        "samples": found.samples["test"],
        "faults": [check.code for check in found.data if check.severity == "fault"],
        "chance": head.chance,
        "best": head.best_single,
    }
    single = ("joint", "late_fusion", "gain", "single_gain")
    facts |= {name: _short(getattr(head, name)) for name in single}
    facts["modalities"] = {
        m: {
            "alone": _short(head.alone[m]),
            "probe": _shorts(found.probes[m]),
            "use": _shorts(found.use[m]),
            "late_use": _shorts(found.late_use[m]),
            "ahead": _short(found.ahead[m]),
        }
        for m in found.modalities
    }
    return facts


def _short(x: Estimate) -> list[float]:
    return [round(value, 6) for value in (x.value, x.low, x.high)]


def _shorts(x: Probe | Use) -> list[list[float]]:
    return [_short(Estimate(**part)) for part in x.to_json().values()]


def evidence(line: Line) -> Evidence:
    """What the verdict of a line is made from."""
    facts = line["evidence"]
    each = facts["modalities"]

    def read(name: str, kind: Any) -> dict[str, Any]:
        return {m: kind(*(Estimate(*e) for e in parts[name])) for m, parts in each.items()}

    head = Headroom(
        facts["chance"],
        {m: Estimate(*parts["alone"]) for m, parts in each.items()},
        facts["best"],
        *(Estimate(*facts[name]) for name in ("joint", "late_fusion", "gain", "single_gain")),
    )
    return Evidence(
        facts["samples"],
        head,
        read("probe", Probe),
        read("use", Use),
        read("late_use", Use),
        facts["faults"],
        ahead={m: Estimate(*parts["ahead"]) for m, parts in each.items() if "ahead" in parts},
    )


# ── the table ───────────────────────────────────────────────────────────────────────────────────

NAMED, BOTH, OTHER = "imbalanced: it", "imbalanced: it and others", "imbalanced: others"
SYNERGY, FAULT, UNSURE = "synergistic", "data fault", "cannot tell"
ANSWERS = (NAMED, BOTH, OTHER, BALANCED, SYNERGY, FAULT, UNSURE)
RIGHT = {
    BALANCED_CASE: (BALANCED,),
    WEAK: (BALANCED,),
    UNDER: (NAMED,),
    SHORTCUT: (NAMED,),
    NOISE: (BALANCED,),
    REDUNDANT: (BALANCED,),
    SYNERGISTIC: (SYNERGY,),
    LEAK: (FAULT,),
    UNFINISHED: (UNSURE,),
}
"""The answer to each truth that is wholly right."""

ALARMS = (NAMED, BOTH, OTHER)


def answer(line: Line) -> str:
    """The column of a case, by the rules as they are now."""
    found = verdict(evidence(line))
    if found.kind == IMBALANCED:
        return _whom(found, line["case"]["planted"])
    if found.kind == BALANCED:
        return SYNERGY if found.synergistic else BALANCED
    return FAULT if line["evidence"]["faults"] else UNSURE


def _whom(found: Verdict, planted: str) -> str:
    blamed = (*found.neglected, *found.held_back)
    if planted not in blamed:
        return OTHER
    return NAMED if len(blamed) == 1 else BOTH


RATES = {
    "false alarms": ((BALANCED_CASE, WEAK, UNFINISHED), ALARMS),
    "detection": ((UNDER, SHORTCUT), (NAMED, BOTH)),
    "blamed": ((NOISE,), (NAMED, BOTH)),
}
"""Of which truths each rate is, and the answers that it counts."""


def rates(lines: Iterable[Line]) -> dict[str, tuple[int, int]]:
    """(how many, of how many) produced cases, for each rate."""
    counts: dict[str, list[bool]] = {}
    for line in filter(produced, lines):
        kind, said = line["case"]["truth"], answer(line)
        counts.setdefault(f"right: {kind}", []).append(said in RIGHT[kind])
        for name, (truths, answers) in RATES.items():
            if kind in truths:
                counts.setdefault(f"{name}: {kind}", []).append(said in answers)
    return {name: (sum(hits), len(hits)) for name, hits in counts.items()}


def meets(found: Mapping[str, tuple[int, int]]) -> bool:
    """Whether the rates keep both bounds."""
    share = {name: hits / count for name, (hits, count) in found.items()}
    alarms = max(share[f"false alarms: {truth}"] for truth in (BALANCED_CASE, WEAK))
    enough = share[f"detection: {UNDER}"] >= BOUNDS["detection"]
    return alarms <= BOUNDS["false alarms"] and enough


def matrix(lines: Iterable[Line]) -> dict[str, Counter[str]]:
    """How often each truth got each answer."""
    counts = {truth: Counter[str]() for truth in (*SHARES, UNFINISHED)}
    for line in lines:
        counts[line["case"]["truth"]][answer(line)] += 1
    return counts


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share."""
    from scipy import stats

    found = stats.binomtest(hits, count).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def _percent(hits: int, count: int) -> str:
    low, high = wilson(hits, count)
    return f"{hits}/{count} = {hits / count:.1%} ({low:.1%} to {high:.1%})"


def page(lines: Sequence[Line], command: str) -> str:
    """The results as Markdown."""
    done = [line for line in lines if produced(line)]
    failed = [line for line in lines if not produced(line)]
    found, bands = rates(done), detection_by_gap(done)
    halves = [rates(half) for half in split(done)]
    parts = [
        "# Is the verdict right?\n",
        __doc__.split("\n\n")[2] + "\n",
        f"{len(lines)} cases, of which {len(done)} were produced. Command:\n\n    {command}\n",
        "## Truth and verdict\n\n“It” is the planted modality.\n",
        table(matrix(done)),
        "## Rates\n\nWith 95 % Wilson intervals. Thresholds were chosen on the first rounds.\n",
        f"| | all | first {CHOSE} rounds | the others |\n| --- | --- | --- | --- |\n"
        + "".join(
            f"| {name} | {_percent(*found[name])} | "
            + " | ".join(_percent(*half[name]) if name in half else "" for half in halves)
            + " |\n"
            for name in sorted(found)
        ),
        "Under-trained cases by the size of their true gap:\n",
        "| true gap | found |\n| --- | --- |\n"
        + "".join(f"| {band} | {_percent(*shares)} |\n" for band, shares in bands.items()),
        "## Not produced\n\nWhat the verdict said of cases that did not become what they should.\n",
        table(matrix(failed)),
        "## Thresholds\n\n"
        + "".join(f"- {name}: {t.value:g}. {t.source}\n" for name, t in THRESHOLDS.items()),
    ]
    return "\n".join(parts)


def table(counts: Mapping[str, Counter[str]]) -> str:
    """The confusion matrix as Markdown."""
    head = "| truth | cases | " + " | ".join(ANSWERS) + " |\n"
    rows = [
        f"| {truth} | {row.total()} | " + " | ".join(str(row[a] or "") for a in ANSWERS) + " |\n"
        for truth, row in counts.items()
    ]
    return head + "| --- |" + " ---: |" * (len(ANSWERS) + 1) + "\n" + "".join(rows)


def detection_by_gap(lines: Iterable[Line]) -> dict[str, tuple[int, int]]:
    """How many of the under-trained are found, where much and where little is lost."""
    ends = (REAL, 0.03, 0.04, 0.06, 1.0)
    found: dict[str, tuple[int, int]] = {}
    under = [line for line in lines if line["case"]["truth"] == UNDER]
    for low, high in pairwise(ends):
        here = [x for x in under if low <= x["true"]["gaps"][x["case"]["planted"]] < high]
        if here:
            hits = sum(answer(line) in (NAMED, BOTH) for line in here)
            found[f"{low:.2f} to {high:.2f}"] = hits, len(here)
    return found


def split(lines: Iterable[Line]) -> tuple[list[Line], list[Line]]:
    """The half that chooses and the half that confirms."""
    halves: tuple[list[Line], list[Line]] = [], []
    for line in lines:
        halves[line["case"]["round"] >= CHOSE].append(line)
    return halves


# ── thresholds ──────────────────────────────────────────────────────────────────────────────────


@contextmanager
def thresholds(values: Mapping[str, float]) -> Iterator[None]:
    """Other thresholds, for the while."""
    before = dict(THRESHOLDS)
    THRESHOLDS.update({m: replace(THRESHOLDS[m], value=v) for m, v in values.items()})
    try:
        yield
    finally:
        THRESHOLDS.update(before)


SWEPT = {
    "probe gap": (0.01, 0.02, 0.03, 0.04, 0.06),
    "sure gap": (0.0, 0.005, 0.01, 0.015, 0.02, 0.03),
    "listening": (0.05, 0.1, 0.2, 0.5, 0.7, 0.8, 0.9),
    "ensemble": (0.01, 0.02, 0.03, 0.05),
}


def swept(lines: Sequence[Line]) -> str:
    """Both halves with each threshold varied and the others as they are, as Markdown."""
    names = [f"false alarms: {BALANCED_CASE}", f"false alarms: {WEAK}"]
    names += [f"detection: {UNDER}", f"right: {UNDER}"]
    names += [f"right: {truth}" for truth in (SHORTCUT, NOISE, REDUNDANT)]
    text = "| threshold | value | rounds | " + " | ".join(names) + " | both bounds |\n"
    text += "| --- | ---: | --- |" + " ---: |" * len(names) + " --- |\n"
    for name, values in SWEPT.items():
        for value in values:
            with thresholds({name: value}):
                for half, rows in zip(("first", "others"), split(lines), strict=True):
                    found = rates(rows)
                    cells = ["{}/{}".format(*found[x]) for x in names]
                    cells += ["kept" if meets(found) else ""]
                    text += f"| {name} | {value} | {half} | " + " | ".join(cells) + " |\n"
    return text


# ── the run ─────────────────────────────────────────────────────────────────────────────────────


def read(path: Path) -> dict[str, Line]:
    """The finished cases; a last line that was cut is dropped."""
    if not path.exists():
        return {}
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    path.write_text("".join(whole))
    lines = [json.loads(line) for line in whole]
    return {line["key"]: line for line in lines}


def remaining(cases: Iterable[Case], done: Mapping[str, Line]) -> list[Case]:
    """The cases that are not finished.

    Raises ValueError where a finished one was another case of that name.
    """
    cases = list(cases)
    for case in cases:
        if case.key in done and done[case.key]["case"] != asdict(case):
            raise ValueError(
                f"Finished cases should be those of this grid. Found another `{case.key}`. Move "
                "`verdict_grid.jsonl` away to begin anew."
            )
    return [case for case in cases if case.key not in done]


def run(cases: Sequence[Case], path: Path, jobs: int) -> list[Line]:
    """All cases' lines; those that are missing are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done = read(path)
    todo, start = remaining(cases, done), time.monotonic()
    with workers(jobs) as executor, path.open("a") as out:
        futures = [executor.submit(finished, case) for case in todo]
        for number, future in enumerate(as_completed(futures), start=1):
            line = future.result()
            done[line["key"]] = line
            out.write(json.dumps(line) + "\n")
            out.flush()
            left = (time.monotonic() - start) / number * (len(todo) - number)
            print(f"{number}/{len(todo)} {line['key']}: {answer(line)}; {left:.0f} s", flush=True)
    return [done[case.key] for case in cases]


def save(lines: Sequence[Line], out: Path, command: str) -> None:
    """The Markdown page and its twin."""
    out.mkdir(parents=True, exist_ok=True)
    done = [line for line in lines if produced(line)]
    facts = {
        "command": command,
        "cases": len(lines),
        "torch": torch.__version__,
        "thresholds": {name: t.value for name, t in THRESHOLDS.items()},
        "bounds": BOUNDS,
        "matrix": {truth: dict(row) for truth, row in matrix(done).items()},
        "not_produced": {
            truth: dict(row) for truth, row in matrix(x for x in lines if not produced(x)).items()
        },
        "rates": {
            name: {"hits": h, "count": n, "rate": h / n, "interval": wilson(h, n)}
            for name, (h, n) in rates(done).items()
        },
        "detection_by_gap": detection_by_gap(done),
    }
    (out / "verdict_grid.json").write_text(json.dumps(facts, indent=1) + "\n")
    (out / "verdict_grid.md").write_text(page(lines, command))


def main() -> None:
    """Make what is missing, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="a folder")
    parser.add_argument("--lines", type=Path, default=None, help="by default in the folder")
    parser.add_argument("--cases", type=int, default=240, help="how many, besides those cut short")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--sweep", action="store_true", help="vary the thresholds; train nothing")
    arguments = parser.parse_args()
    lines = arguments.lines or arguments.out / "verdict_grid.jsonl"
    if arguments.sweep:
        print(swept(list(read(lines).values())))
        return
    cases = [*grid(arguments.cases), *unfinished(arguments.cases // sum(SHARES.values()))]
    found = run(cases, lines, arguments.jobs)
    command = f"python benchmarks/verdict_grid.py --out docs/results --cases {arguments.cases}"
    save(found, arguments.out, command)
    print(page(found, command))


if __name__ == "__main__":
    main()
