"""The set-up: what does not learn, and what is in the wrong mode."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from equivox.diagnosis.findings import Facts, Finding, skipped
from equivox.model import Multimodal


def frozen(facts: Facts) -> Iterator[Finding]:
    for name, part in _modules(facts.model).items():
        every = list(part.parameters())
        fixed = [p for p in every if not p.requires_grad]
        if fixed:
            yield Finding(
                "frozen",
                _modality(facts, name),
                "warning",
                f"{len(fixed)} of {len(every)} parameters of {_called(name)} are frozen.",
                "If it should learn, `requires_grad_(True)` before the optimizer is built.",
                len(fixed),
            )


def missing(facts: Facts) -> Iterator[Finding]:
    if facts.optimizer is None:
        yield skipped("optimizer", "no optimizer")
        return
    held = {id(p) for group in facts.optimizer.param_groups for p in group["params"]}
    for name, part in _modules(facts.model).items():
        left = [k for k, p in part.named_parameters() if p.requires_grad and id(p) not in held]
        if left:
            yield Finding(
                "optimizer",
                _modality(facts, name),
                "fault",
                f"{len(left)} parameters of {_called(name)} are not in the optimizer: "
                + ", ".join(f"`{k}`" for k in left[:5])
                + (", …." if len(left) > 5 else "."),
                "Build it with `balancer.parameters()`, after the model is complete.",
                len(left),
            )


def batch_norm(facts: Facts) -> Iterator[Finding]:
    if not any(m.training for m in facts.model.modules() if not isinstance(m, _BatchNorm)):
        yield skipped("batchnorm", "a model that is not in training mode")
        return
    for name, part in _modules(facts.model).items():
        found = [k for k, m in part.named_modules() if isinstance(m, _BatchNorm) and not m.training]
        if found:
            yield Finding(
                "batchnorm",
                _modality(facts, name),
                "warning",
                f"{len(found)} BatchNorm layers of {_called(name)} are in eval mode while the rest "
                "trains: " + ", ".join(f"`{k or name}`" for k in found[:5]) + ".",
                "Call `model.train()` before each epoch, also after every evaluation.",
                len(found),
            )


def _modules(model: Multimodal) -> dict[str, nn.Module]:
    """The encoders by modality, and the rest."""
    heads = {} if model.heads is None else {"heads of their own": model.heads}
    return {**dict(model.encoders.items()), "the fusion": model.fusion, **heads}


def _modality(facts: Facts, name: str) -> str | None:
    return name if name in facts.model.modalities else None


def _called(name: str) -> str:
    return name if " " in name else f"the encoder of `{name}`"
