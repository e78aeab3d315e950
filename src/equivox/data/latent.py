"""Latent Gaussian modalities: data of any size and difficulty whose ceilings are known exactly.

Modality m holds a latent z in R^dim, standard normal but for what it says about the target:

- classification: coordinate y of z has mean s_m. Its Bayes accuracy is
  `acc(s) = ∫ φ(z - s) Φ(z)^(K-1) dz`, and modalities add in squares: `acc(√Σ s_m²)` together.
- regression: coordinate 0 of z is `a_m y + noise` with y standard normal. Its best R2 is
  `a_m² / (1 + a_m²)`, and `S / (1 + S)` with `S = Σ a_m²` together.

What is observed is an invertible map of z, which changes the difficulty and no ceiling: a random
rotation, then `depth` times a signed power, standardisation and another rotation, then `scale`.
So an *informative but slow* modality, which balancing can help, has a high ceiling and a depth or a
small scale; a modality with a low ceiling is merely weak, and no training can cure it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivox.data.base import MultimodalData, divide, draws
from equivox.encoders import MLP


@dataclass(frozen=True)
class LatentModality:
    """How much a modality says, and how hard it is to learn.

    :param ceiling: The Bayes accuracy, or in regression the R2, that it reaches alone; None for
        pure noise.
    :param dim: Length of its vectors; at least the number of classes.
    :param depth: How many times it is warped.
    :param power: Exponent of the signed power of a warp.
    :param scale: Factor on the observation: the larger, the faster it is learned.
    :param hidden: Widths of the layers of its default encoder.
    """

    ceiling: float | None
    dim: int = 12
    depth: int = 0
    power: float = 2.0
    scale: float = 1.0
    hidden: Sequence[int] = (64, 32)

    def __post_init__(self) -> None:
        if self.power <= 0 or self.scale <= 0 or self.depth < 0:
            raise ValueError(
                "`power` and `scale` should be positive, `depth` not negative. Found "
                f"`power = {self.power}`, `scale = {self.scale}`, `depth = {self.depth}`."
            )


EASY = LatentModality(ceiling=0.95, scale=2.0)
HARD = LatentModality(ceiling=0.90, dim=16, depth=1, scale=0.5, hidden=(128, 128, 32))
WEAK = LatentModality(ceiling=0.70)

Modalities = Mapping[str, LatentModality]

LATENT2 = {"easy": EASY, "hard": HARD}
LATENT3 = LATENT2 | {"weak": WEAK}
BALANCED = {"first": EASY, "second": EASY}
NOISE = {"signal": EASY, "noise": LatentModality(ceiling=None)}
REGRESSION = {"easy": EASY, "hard": replace(HARD, depth=2, scale=0.3)}


def bayes_accuracy(shift: float, classes: int) -> float:
    """`∫ φ(z - s) Φ(z)^(K-1) dz`: the best accuracy where the true class's coordinate has mean s.

    >>> round(bayes_accuracy(3.159, classes=6), 3), round(bayes_accuracy(0.0, classes=6), 3)
    (0.95, 0.167)
    """
    t = torch.linspace(-10, 10, 2001, dtype=torch.float64)  # z - s; exact to rounding
    density = torch.exp(-t.square() / 2) / math.sqrt(2 * math.pi)
    return float(torch.trapezoid(density * torch.special.ndtr(t + shift) ** (classes - 1), t))


def shift_of(accuracy: float, classes: int) -> float:
    """The mean s at which the Bayes accuracy is `accuracy`, by bisection over [0, 20].

    >>> round(shift_of(0.90, classes=6), 3)
    2.71
    """
    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        if bayes_accuracy(middle, classes) < accuracy:
            low = middle
        else:
            high = middle
    return high


def latent(
    name: str,
    seed: int,
    *,
    modalities: Mapping[str, Any] | Sequence[Any] = (EASY, HARD),
    classes: int = 6,
    samples: int = 6000,
) -> MultimodalData:
    """Classification with any number of modalities, classes and samples.

    :param modalities: A `LatentModality`, or a mapping of its arguments, by name; or a sequence of
        them, which are then called `m1`, `m2`, ….
    :param classes: K, equally likely.
    :param samples: Training, validation and test samples together (50, 10 and 40 %).
    :raises ValueError: Where a ceiling is not between chance and 1, or a `dim` is below K.
    """
    specs = _specifications(modalities)
    _check(specs, samples, classes)
    shifts = {m: shift_of(spec.ceiling or 0.0, classes) for m, spec in specs.items()}
    generator = draws(seed)
    target = torch.randint(classes, (samples,), generator=generator)
    signals = {m: shift * F.one_hot(target, classes) for m, shift in shifts.items()}
    return _assembled(
        name,
        {"seed": seed, "modalities": _plain(specs), "classes": classes, "samples": samples},
        specs,
        _observations(specs, signals, generator),
        target,
        _ceilings(shifts, lambda known: bayes_accuracy(math.hypot(*known), classes)),
        classes,
    )


def redundant(name: str, seed: int, *, classes: int = 6, samples: int = 6000) -> MultimodalData:
    """A modality and a copy of it, turned round: together they say what either says alone."""
    specs = {"original": EASY, "turned": EASY}
    _check(specs, samples, classes)
    shift = shift_of(0.95, classes)
    generator = draws(seed)
    target = torch.randint(classes, (samples,), generator=generator)
    z = _latent(shift * F.one_hot(target, classes), EASY.dim, generator)
    return _assembled(
        name,
        {"seed": seed, "classes": classes, "samples": samples},
        specs,
        {m: _observed(z, spec, generator) for m, spec in specs.items()},
        target,
        _ceilings(dict.fromkeys(specs, 0.95), max),
        classes,
    )


def xor(name: str, seed: int, *, modalities: int = 2, samples: int = 6000) -> MultimodalData:
    """The parity of one hidden bit a modality: all but the whole set are at chance.

    With bit accuracies a the whole reaches `(1 + (2a - 1)^M) / 2`. A sum of unimodal logits
    cannot express it, so the usual fusion is gated: a linear head on concatenated features would
    stay at chance.

    :param modalities: How many there are.
    """
    specs = {f"m{i + 1}": EASY for i in range(modalities)}
    _check(specs, samples, classes=2)
    generator = draws(seed)
    bits = torch.randint(2, (samples, modalities), generator=generator)
    shift = shift_of(0.95, classes=2)
    signals = {m: shift * F.one_hot(b, 2) for m, b in zip(specs, bits.T, strict=True)}
    whole = (1 + (2 * 0.95 - 1) ** modalities) / 2
    data = _assembled(
        name,
        {"seed": seed, "modalities": modalities, "samples": samples},
        specs,
        _observations(specs, signals, generator),
        bits.sum(1) % 2,
        _ceilings(dict.fromkeys(specs, 0.0), lambda s: whole if len(s) == modalities else 0.5),
        classes=2,
    )
    return replace(data, fusion="gated")


def regression(
    name: str,
    seed: int,
    *,
    modalities: Mapping[str, Any] | Sequence[Any] = REGRESSION,
    samples: int = 6000,
) -> MultimodalData:
    """Regression of a standard normal number; the options are those of `latent`."""
    specs = _specifications(modalities)
    _check(specs, samples, classes=None)
    odds = {m: (c := spec.ceiling or 0.0) / (1 - c) for m, spec in specs.items()}  # a_m²
    generator = draws(seed)
    target = torch.randn(samples, 1, generator=generator)
    signals = {m: math.sqrt(a) * target for m, a in odds.items()}
    return _assembled(
        name,
        {"seed": seed, "modalities": _plain(specs), "samples": samples},
        specs,
        _observations(specs, signals, generator),
        target,
        _ceilings(odds, lambda known: sum(known) / (1 + sum(known))),
    )


def _latent(signal: Tensor, dim: int, generator: torch.Generator) -> Tensor:
    """Standard normal rows whose first coordinates carry the signal."""
    z = torch.randn(len(signal), dim, generator=generator)
    z[:, : signal.shape[1]] += signal
    return z


def _observed(z: Tensor, modality: LatentModality, generator: torch.Generator) -> Tensor:
    """The invertible map from the latent vectors to what is observed of them."""
    x = z @ _rotation(modality.dim, generator)
    for _ in range(modality.depth):
        x = x.abs() ** modality.power * x.sign()
        train = x[: len(x) // 2]
        x = (x - train.mean(0)) / train.std(0) @ _rotation(modality.dim, generator)
    return x * modality.scale


def _observations(
    specs: Modalities, signals: Mapping[str, Tensor], generator: torch.Generator
) -> dict[str, Tensor]:
    return {
        m: _observed(_latent(signals[m], spec.dim, generator), spec, generator)
        for m, spec in specs.items()
    }


def _rotation(dim: int, generator: torch.Generator) -> Tensor:
    """A random orthogonal matrix, uniform once the signs of R's diagonal are taken out."""
    q, r = torch.linalg.qr(torch.randn(dim, dim, generator=generator))
    return q * r.diagonal().sign()


def _ceilings(
    facts: Mapping[str, float], joint: Callable[[list[float]], float]
) -> dict[tuple[str, ...], float]:
    """The ceiling of every non-empty set of modalities."""
    return {
        subset: joint([facts[m] for m in subset])
        for size in range(1, len(facts) + 1)
        for subset in combinations(facts, size)
    }


def _assembled(
    name: str,
    options: Mapping[str, Any],
    specs: Modalities,
    inputs: Mapping[str, Tensor],
    target: Tensor,
    ceilings: Mapping[tuple[str, ...], float],
    classes: int = 0,
) -> MultimodalData:
    return MultimodalData(
        name,
        options,
        *divide(inputs, target, train=len(target) // 2, validation=len(target) // 10),
        architectures={m: partial(MLP, spec.dim, spec.hidden) for m, spec in specs.items()},
        classes=tuple(str(k) for k in range(classes)),
        ceilings=ceilings,
    )


def _specifications(modalities: Mapping[str, Any] | Sequence[Any]) -> dict[str, LatentModality]:
    if not isinstance(modalities, Mapping):
        modalities = {f"m{i}": spec for i, spec in enumerate(modalities, start=1)}
    return {
        m: spec if isinstance(spec, LatentModality) else LatentModality(**spec)
        for m, spec in modalities.items()
    }


def _plain(specs: Modalities) -> dict[str, dict[str, Any]]:
    return {m: asdict(spec) for m, spec in specs.items()}


def _check(specs: Modalities, samples: int, classes: int | None) -> None:
    """Sizes that can be split, and ceilings that can be reached; None stands for regression."""
    if not specs or samples < 20 or (classes is not None and classes < 2):
        raise ValueError(
            "Latent data need a modality, two classes and 20 samples at least. Found "
            f"{len(specs)} modalities, `classes = {classes}`, `samples = {samples}`."
        )
    chance = 1 / classes if classes else 0.0
    for m, spec in specs.items():
        if spec.dim < (classes or 1):
            raise ValueError(
                f"`dim` should be at least the number of classes. Found `dim = {spec.dim}` of "
                f"`{m}` and `classes = {classes}`."
            )
        if spec.ceiling is not None and not chance <= spec.ceiling < 1:
            raise ValueError(
                f"`ceiling` should lie between chance ({chance:.3g}) and 1. Found "
                f"`ceiling = {spec.ceiling}` of `{m}`. Pass `ceiling=None` for pure noise."
            )
