"""What is checked of every method: one function a check."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset, default_collate

from equivox.balancer import Balancer
from equivox.method import Method
from equivox.testing.pair import Pair, train
from equivox.testing.problem import Problem, sgd, state, steps

CATEGORIES = ("data", "feed-forward", "objective", "optimization", "target", "yardstick", "control")


class Case:
    """A method's class, the arguments it is checked with, and a pair of processes."""

    def __init__(
        self, method: type[Method], arguments: Mapping[str, Any], pair: Callable[[], Pair]
    ) -> None:
        self.method = method
        self.arguments = dict(arguments)
        self.pair = pair

    def made(self) -> Method:
        """The method, anew."""
        return self.method(**self.arguments)


class DoesNotApply(Exception):
    """Why a check does not apply to a method."""


def require(condition: object, rule: str, found: object) -> None:
    """Fail with the rule and what was found."""
    if not condition:
        raise AssertionError(f"{rule} Found: {found}")


def require_close(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], rule: str, tolerance: float
) -> None:
    """Fail where a tensor is further off than `tolerance` times the largest entry or one."""
    require(found.keys() == expected.keys(), rule, found.keys() ^ expected.keys())
    for name, value in expected.items():
        if not value.is_floating_point() or not value.numel():
            continue
        here = found[name].to(value.dtype)
        error = (here - value).masked_fill(here == value, 0).abs().max().item()  # equal infinities
        require(
            error <= tolerance * max(1.0, value.abs().max().item()),
            rule,
            f"`{name}` differs by {error:.2e}",
        )


def require_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], rule: str) -> None:
    """Fail where a tensor is not the same bit for bit."""
    require(found.keys() == expected.keys(), rule, found.keys() ^ expected.keys())
    different = [k for k, v in expected.items() if not torch.equal(found[k], v)]
    require(not different, rule, f"differences in {different[:5]}")


# ── what it is ──────────────────────────────────────────────────────────────────────────────────


def builds(case: Case) -> None:
    """Built from its defaults; documented; its `repr` makes it again."""
    method = case.method()
    signature = inspect.signature(case.method.__init__).parameters.values()
    arguments = [p for p in signature if p.name not in ("self", "args", "kwargs")]
    positional = [p.name for p in arguments if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    require(not positional, "Hyper-parameters should be keyword-only.", positional)
    unknown = set(case.method.search_space) - {p.name for p in arguments}
    require(not unknown, "`search_space` should name hyper-parameters.", unknown)
    require(case.method.category in CATEGORIES, "`category` should be known.", method.category)
    require(
        case.method.__doc__ and case.method.__doc__ != Method.__doc__,
        "A method should be documented.",
        case.method.__doc__,
    )
    again = eval(repr(method), {case.method.__name__: case.method})
    require(repr(again) == repr(method), "`repr` should make the method again.", repr(method))


# ── training ────────────────────────────────────────────────────────────────────────────────────


def _trains(case: Case, problem: Problem, method: Method | None = None) -> Balancer:
    balancer = problem.balancer(method or case.made())
    before = state(balancer)
    optimizer = sgd(balancer)
    torch.manual_seed(0)
    learned: set[str] = set()
    for loss in steps(balancer, optimizer, problem.loader(), epochs=2):
        require(loss.isfinite(), "The loss should be finite.", loss)
        learned |= {k for k, p in balancer.model.named_parameters() if p.grad is not None}
    changed = {k for k, v in state(balancer).items() if not torch.equal(v, before[k])}
    _require_movement(balancer, learned, {k.removeprefix("model.") for k in changed})
    return balancer


def _require_movement(balancer: Balancer, learned: set[str], changed: set[str]) -> None:
    """All of an encoder learns, something of the fusion and each head; nothing idle does."""
    names = {k for k, p in balancer.model.named_parameters() if p.requires_grad}
    heads = {k.split(".")[1] for k in names if k.startswith("heads.")}
    parts = {
        "encoders": {k for k in names if k.startswith("encoders.")},
        "fusion": {k for k in names if k.startswith("fusion.")},
    }
    parts |= {f"heads of {m}": {k for k in names if k.startswith(f"heads.{m}.")} for m in heads}
    for part, members in parts.items():
        if part.split()[0] in balancer.method.idle:
            require(
                not members & learned, f"Idle {part} should get no gradient.", members & learned
            )
        elif part == "encoders":
            still = members - (learned & changed)
            require(not still, "Every parameter of the encoders should learn.", still)
        elif members:
            require(members & learned & changed, f"The {part} should learn.", "nothing that moved")


def trains_two_modalities(case: Case) -> None:
    """The loss is finite, what should learn moves, what is idle gets no gradient."""
    _trains(case, Problem())


def trains_three_modalities(case: Case) -> None:
    """The same with three modalities."""
    _trains(case, Problem(modalities=3))


def trains_four_modalities(case: Case) -> None:
    """The same with four modalities."""
    _trains(case, Problem(modalities=4))


def trains_sequences(case: Case) -> None:
    """Features are tokens with a padding mask, fused by attention."""
    _trains(case, Problem(kind="sequence"))


def trains_adopted(case: Case) -> None:
    """The model is a network taken in by `Multimodal.from_model`."""
    _trains(case, Problem(kind="adopted"))


def _task(case: Case, task: str) -> None:
    problem = Problem(task=task, kind="dense" if task == "Dense" else "vector")
    if task in case.method.tasks:
        _trains(case, problem)
        return
    try:
        problem.balancer(case.made())
    except ValueError:
        return
    require(False, f"A method that is not defined for {task} should refuse it.", "no error")


def trains_regression(case: Case) -> None:
    """Regression works, or is refused when built."""
    _task(case, "Regression")


def trains_multi_label(case: Case) -> None:
    """Multi-label classification works, or is refused when built."""
    _task(case, "MultiLabel")


def trains_dense(case: Case) -> None:
    """Dense prediction works, or is refused when built."""
    _task(case, "Dense")


def chains(case: Case) -> None:
    """Followed by any other method it trains and predicts, or the pair is refused when built."""
    from equivox.methods import get, names

    problem = Problem()
    inputs = next(iter(problem.loader()))[0]
    for name in names():
        try:
            balancer = problem.balancer(case.made() + get(name)(**get(name).brief))
        except ValueError:
            continue
        torch.manual_seed(0)
        for loss in steps(balancer, sgd(balancer), problem.loader(), epochs=2):
            require(loss.isfinite(), f"The loss should be finite together with {name}.", loss)
        said = balancer.predict(inputs)
        require(said.isfinite().all(), f"It should predict together with {name}.", said)


# ── the same result by other ways ───────────────────────────────────────────────────────────────


def _final(
    case: Case,
    problem: Problem,
    forward: Callable[[Balancer], Callable[..., Tensor]] | None = None,
    method: Method | None = None,
    compiled: bool = False,
) -> dict[str, Tensor]:
    balancer = problem.balancer(method or case.made())
    optimizer = sgd(balancer)
    if compiled:
        balancer.compile(backend="aot_eager")
    torch.manual_seed(0)
    for _ in steps(balancer, optimizer, problem.loader(), 2, forward and forward(balancer)):
        pass
    return state(balancer)


def equals_joint_when_neutral(case: Case) -> None:
    """With neutral hyper-parameters it is joint training, bit for bit."""
    if case.method.neutral is None:
        raise DoesNotApply("No hyper-parameters make it joint training.")
    problem = Problem(random=True)
    neutral = case.method(**{**case.arguments, **case.method.neutral})
    found, joint = _final(case, problem, method=neutral), _final(case, problem, method=Method())
    require_equal(
        {k: found.get(k, v) for k, v in joint.items()},
        joint,
        "Neutral hyper-parameters should give joint training.",
    )


def _snapshots(case: Case, problem: Problem) -> Iterator[tuple[Any, ...]]:
    balancer = problem.balancer(case.made())
    optimizer = sgd(balancer)
    torch.manual_seed(0)
    for _ in steps(balancer, optimizer, problem.loader(), epochs=2):
        yield balancer, copy.deepcopy((balancer.state_dict(), optimizer.state_dict()))


def resumes(case: Case) -> None:
    """Saved after any step of two epochs and resumed, it ends as if never interrupted."""
    problem = Problem(random=True)
    saved = list(_snapshots(case, problem))
    expected = state(saved[-1][0])
    for number, (_, (weights, moments)) in enumerate(saved[:-1], start=1):
        torch.manual_seed(number)  # whatever happened before
        balancer = problem.balancer(case.made())
        optimizer = sgd(balancer)
        balancer.load_state_dict(weights)
        optimizer.load_state_dict(moments)
        left = 1 if balancer.progress.epoch else 2
        for _ in steps(balancer, optimizer, problem.loader(), left):
            pass
        require_equal(state(balancer), expected, f"Resumed after step {number} it should be equal.")


def equals_in_micro_batches(case: Case) -> None:
    """Two micro-batches an update equal one batch of both."""
    whole, halves = (
        train(case.made(), parallel=False, accumulate=accumulate) for accumulate in (1, 2)
    )
    require_close(halves, whole, "Micro-batches should equal one batch.", 1e-4)


def _two_ranks(case: Case, accumulate: int) -> None:
    first, second = case.pair().train(case.method, case.arguments, accumulate)
    require_equal(first, second, "Both ranks should hold the same, bit for bit.")
    torch.manual_seed(0)
    alone = train(case.made(), parallel=False, accumulate=accumulate)
    require_close(first, alone, "Two ranks should equal one process.", 1e-4)


def equals_on_two_ranks(case: Case) -> None:
    """Two processes equal one, and each other bit for bit."""
    _two_ranks(case, accumulate=1)


def equals_on_two_ranks_accumulating(case: Case) -> None:
    """The same with micro-batches under `no_sync`."""
    _two_ranks(case, accumulate=2)


def equals_with_closure(case: Case) -> None:
    """`optimizer.step(closure)` equals the plain loop."""
    problem = Problem()
    balancer = problem.balancer(case.made())
    optimizer = sgd(balancer)
    torch.manual_seed(0)
    for _ in range(2):
        for batch in balancer.epoch(problem.loader()):

            def closure(batch: tuple[Any, ...] = batch) -> Tensor:
                optimizer.zero_grad()
                loss: Tensor = balancer(*batch)
                loss.backward()
                return loss

            optimizer.step(closure)  # type: ignore[arg-type]
    require_equal(state(balancer), _final(case, problem), "A closure should equal the plain loop.")


def equals_compiled(case: Case) -> None:
    """Compiled encoders, fusion and heads equal eager ones."""
    torch.compiler.reset()
    found = _final(case, Problem(), compiled=True)
    require_close(found, _final(case, Problem()), "Compiled should equal eager.", 1e-4)


def _scaled(case: Case, fused: bool) -> dict[str, Tensor]:
    problem = Problem()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    balancer = problem.balancer(case.made(), scaler=scaler)
    optimizer = sgd(balancer, fused=fused)
    torch.manual_seed(0)
    for _ in range(2):
        for batch in balancer.epoch(problem.loader()):
            scaler.scale(balancer(*batch)).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    return state(balancer)


def equals_with_scaler(case: Case) -> None:
    """A GradScaler changes nothing, be the optimizer fused or not."""
    expected = _final(case, Problem())
    for fused in (False, True):
        found = _scaled(case, fused)
        require_close(found, expected, f"A scaler (fused={fused}) should change nothing.", 1e-4)


def close_under_autocast(case: Case) -> None:
    """Under bfloat16 autocast the first update goes where that of full precision goes."""
    problem = Problem()
    moves = []
    for enabled in (False, True):
        balancer = problem.balancer(case.made())
        optimizer = sgd(balancer)
        torch.manual_seed(0)
        batches = balancer.epoch(problem.loader())
        batch = next(batches)
        before = state(balancer)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = balancer(*batch)
        loss.backward()
        optimizer.step()
        after = state(balancer)
        moves.append(
            torch.cat(
                [
                    (after[k] - before[k]).flatten()
                    for k in after
                    if after[k].is_floating_point() and k.startswith("model.")
                ]
            )
        )
    error = (moves[1] - moves[0]).norm() / moves[0].norm().clamp(min=1e-12)
    require(
        moves[1].isfinite().all() and error < 0.1,
        "Autocast should hardly change an update.",
        f"a relative error of {float(error):.3f}",
    )


class Reads(TorchDispatchMode):
    """Notes every operation that would wait for a GPU."""

    reading = frozenset(
        {
            "aten::_local_scalar_dense",
            "aten::nonzero",
            "aten::equal",
            "aten::is_nonzero",
            "aten::masked_select",
            "aten::unique_dim",
            "aten::_unique2",
        }
    )

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split(".")[0]
        if name in self.reading:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def never_waits(case: Case) -> None:
    """No value is read back from the device between an epoch's first and last step."""
    problem = Problem()
    balancer = problem.balancer(case.made())
    optimizer = sgd(balancer)
    torch.manual_seed(0)
    for _ in range(2):
        for batch in balancer.epoch(problem.loader()):
            with Reads() as reads:
                balancer(*batch).backward()
                optimizer.step()
                optimizer.zero_grad()
            require(not reads.found, "A step should read nothing from the device.", reads.found)


def takes_missing_modalities(case: Case) -> None:
    """Samples may lack a modality, and so may all of a batch: the loss stays finite.

    The prediction does not depend on what stands where a modality is not.
    """
    problem = Problem()
    balancer = problem.balancer(case.made())
    loader = DataLoader(_Lacking(problem.data()), batch_size=8, collate_fn=_collated)
    torch.manual_seed(0)
    for loss in steps(balancer, sgd(balancer), loader, epochs=3):
        require(loss.isfinite(), "The loss should be finite with missing modalities.", loss)
    for inputs, *_ in loader:
        said = balancer.predict(inputs)
        require(said.isfinite().all(), "It should predict with missing modalities.", said)
        if "video" in inputs:
            there = inputs["present"]["video"].unsqueeze(1)
            other = {**inputs, "video": torch.where(there, inputs["video"], 7.0)}
            same = torch.equal(balancer.predict(other), said)
            require(same, "What is absent should not change the prediction.", "another one")


def _collated(samples: list[Any]) -> Any:
    """A batch; without any video where it begins with sample 8."""
    inputs, target, index = default_collate(samples)
    if index[0] == 8:
        inputs = {"audio": inputs["audio"], "present": {"video": False}}
    return inputs, target, index


class _Lacking(Dataset[Any]):
    """The samples of a problem, half of them without video."""

    def __init__(self, samples: Dataset[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)  # type: ignore[arg-type]

    def __getitem__(self, i: int) -> Any:
        inputs, target, index = self.samples[i]
        return {**inputs, "present": {"video": i % 2 == 0}}, target, index


CHECKS: dict[str, Callable[[Case], None]] = {
    check.__name__: check
    for check in (
        builds,
        trains_two_modalities,
        trains_three_modalities,
        trains_four_modalities,
        trains_sequences,
        trains_adopted,
        trains_regression,
        trains_multi_label,
        trains_dense,
        takes_missing_modalities,
        chains,
        equals_joint_when_neutral,
        resumes,
        equals_in_micro_batches,
        equals_on_two_ranks,
        equals_on_two_ranks_accumulating,
        equals_with_closure,
        equals_with_scaler,
        close_under_autocast,
        equals_compiled,
        never_waits,
    )
}
