"""What the stages of a method may rely on: evidence, seeds, plans and forks."""

from __future__ import annotations

import copy
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

import equivox as ev
from equivox import methods
from equivox.method import Method
from equivox.step import Step, Update
from equivox.testing.checks import require_equal
from equivox.testing.problem import Problem, sgd, state, steps


def first_batch(problem: Problem) -> tuple[Any, ...]:
    return tuple(next(iter(problem.loader())))


def test_the_seed_is_that_of_the_modules_a_method_makes() -> None:
    def heads(seed: int) -> dict[str, Tensor]:
        return dict(Problem().balancer(methods.get("unimodal_losses")(), seed=seed).state_dict())

    weight = next(k for k in heads(1) if ".heads." in k and k.endswith("weight"))
    torch.testing.assert_close(heads(1)[weight], heads(1)[weight])
    assert not torch.equal(heads(1)[weight], heads(2)[weight])


def test_one_bad_micro_batch_leaves_the_whole_update_out() -> None:
    problem = Problem()
    inputs, target, _ = first_batch(problem)
    bad = {m: torch.full_like(x, torch.nan) for m, x in inputs.items()}
    for order in ((bad, inputs), (inputs, bad)):
        balancer = problem.balancer(ev.Joint(), nonfinite="skip")
        optimizer = sgd(balancer)
        before = state(balancer)
        for part in order:
            balancer(part, target).backward()
        optimizer.step()
        require_equal(state(balancer), before, "No part of the update should be made.")


def test_the_loss_in_eval_mode_is_that_of_the_methods_own_prediction() -> None:
    problem = Problem()
    balancer = problem.balancer(methods.get("best_unimodal")()).eval()
    inputs, target, _ = first_batch(problem)
    own = nn.functional.cross_entropy(balancer.predict(inputs), target)
    fused = nn.functional.cross_entropy(balancer.model(inputs).logits, target)
    torch.testing.assert_close(balancer(inputs, target), own)
    assert not torch.isclose(own, fused)


class Remembering(Method):
    """Has a parameter of its own, with a large gradient."""

    category = "optimization"

    def setup(self, model: ev.Multimodal, task: Any) -> Any:
        self.own = nn.Parameter(torch.ones(1))
        return task

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        return losses | {"own": 1000 * self.own.sum()}


def test_clipping_is_of_the_models_gradient_alone() -> None:
    problem = Problem()
    balancer = problem.balancer(Remembering(), clip=1e-3)
    optimizer = sgd(balancer)
    balancer(*first_batch(problem)).backward()
    optimizer.step()
    norm = nn.utils.get_total_norm([p.grad for p in balancer.model.parameters()])
    torch.testing.assert_close(norm, torch.tensor(1e-3), rtol=1e-3, atol=0.0)
    assert balancer.method.own.grad == 1000


class Drawing(Method):
    """Notes what it draws."""

    category = "optimization"

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        self.drawn = step.uniform(2)
        return losses


def test_a_state_may_be_loaded_into_a_balancer_that_is_in_use() -> None:
    problem = Problem()
    balancer = problem.balancer(Drawing())
    optimizer = sgd(balancer)
    batches = iter(steps(balancer, optimizer, problem.loader(), epochs=2))
    next(batches)
    kept = copy.deepcopy(balancer.state_dict())
    next(batches)
    expected = balancer.method.drawn
    next(batches)
    balancer.load_state_dict(kept)
    for _ in islice(steps(balancer, optimizer, problem.loader()), 1):
        pass
    torch.testing.assert_close(balancer.method.drawn, expected)


def test_loading_forgets_planned_batches_and_open_updates() -> None:
    problem = Problem()
    balancer = problem.balancer(Noting())
    optimizer = sgd(balancer)
    kept = copy.deepcopy(balancer.state_dict())
    inputs, target, _ = next(iter(balancer.epoch(problem.loader())))
    balancer(inputs, target).backward()
    next(iter(balancer.epoch(problem.loader())))  # planned, and not trained on
    balancer.load_state_dict(kept)
    optimizer.zero_grad()
    half = {m: x[:4] for m, x in inputs.items()}
    balancer(half, target[:4]).backward()
    optimizer.step()
    assert balancer.method.rows == 4


class Noting(Method):
    """Notes ones, or a number, under a name that others use too."""

    category = "optimization"

    def __init__(self, *, value: float = 1.0) -> None:
        super().__init__()
        self.value = value
        self.rows = 0
        self.mean = torch.zeros(())

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        step.note("score", torch.full((len(step.target),), self.value) * (1 + step.target))
        return losses

    def gradients(self, update: Update) -> None:
        self.rows = sum(len(part) for part in update.rows("score")[""])
        self.mean = update.mean("score")


class Other(Noting):
    """Another of the kind."""


def test_methods_of_a_chain_do_not_see_each_others_evidence() -> None:
    problem = Problem()
    one, other = Noting(value=1.0), Other(value=3.0)
    balancer = problem.balancer(ev.Chain(one, other))
    optimizer = sgd(balancer)
    inputs, target, _ = first_batch(problem)
    balancer(inputs, target).backward()
    optimizer.step()
    plain = (1.0 + target).mean()
    torch.testing.assert_close(
        torch.stack([one.mean, other.mean]), plain * torch.tensor([1.0, 3.0])
    )
    assert one.rows == other.rows == len(target)


def test_means_of_an_update_count_samples_not_micro_batches() -> None:
    problem = Problem()
    balancer = problem.balancer(Noting())
    optimizer = sgd(balancer)
    inputs, target, _ = first_batch(problem)
    for part in (slice(0, 3), slice(3, 8)):
        balancer({m: x[part] for m, x in inputs.items()}, target[part]).backward()
    optimizer.step()
    torch.testing.assert_close(balancer.method.mean, (1.0 + target).mean())


class Numbered(Method):
    """Remembers what it is given of a batch."""

    category = "optimization"
    needs_index = True

    def epoch(self, batches: Any, run: Any) -> Any:
        for batch in batches:
            yield batch.with_(learn={run.model.modalities[0]})

    def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        self.index = step.batch.index
        return losses


def test_what_a_batch_was_planned_with_holds_for_a_copy_of_it() -> None:
    problem = Problem()
    balancer = problem.balancer(Numbered())
    sgd(balancer)
    inputs, target, index = next(iter(balancer.epoch(problem.loader())))
    balancer({m: x.clone() for m, x in inputs.items()}, target.clone()).backward()
    torch.testing.assert_close(balancer.method.index, index)
    first, second = (balancer.model.encoder_parameters(m) for m in balancer.model.modalities)
    assert all(p.grad is not None for p in first) and all(p.grad is None for p in second)


class Moded(Method):
    """Tells its own mode when it predicts."""

    def predict(self, output: Any) -> Tensor:
        self.mode = self.training
        return output.logits


def test_a_method_predicts_in_eval_mode_too() -> None:
    problem = Problem()
    balancer = problem.balancer(Moded())
    balancer.predict(first_batch(problem)[0])
    assert not balancer.method.mode and balancer.method.training


class Weightless(Method):
    """No sample counts."""

    def features(self, features: Any, step: Step) -> Any:
        step.weight = torch.zeros(len(step.target))
        return features


def test_a_batch_without_weight_has_no_loss() -> None:
    problem = Problem()
    loss = problem.balancer(Weightless())(*first_batch(problem))
    loss.backward()
    assert loss == 0


def test_a_fork_starts_afresh_with_the_same_options() -> None:
    problem = Problem()
    balancer = problem.balancer(ev.Joint(), clip=0.5, seed=3)
    optimizer = sgd(balancer)
    balancer(*first_batch(problem)).backward()
    optimizer.step()
    fork = balancer.fork()
    assert optimizer.state and not fork.optimizer.state
    assert (fork.balancer.clip, fork.balancer.seed) == (0.5, 3)


def test_a_forks_score_of_numbers_tells_far_from_farther() -> None:
    problem = Problem(task="Regression")
    balancer = problem.balancer(ev.Joint())
    sgd(balancer)
    fork = balancer.fork()
    with torch.no_grad():
        fork.balancer.model.fusion.linear.bias += 100
    expected = -fork.losses(problem.loader()).mean()
    torch.testing.assert_close(torch.tensor(fork.score(problem.loader())), expected)


def test_the_order_of_an_epoch_follows_seed_and_epoch() -> None:
    problem = Problem()

    class Shuffled(Method):
        def epoch(self, batches: Any, run: Any) -> Any:
            found.append(torch.randperm(50, generator=run.shuffle).tolist())
            return iter(batches)

    def orders(seed: int) -> list[list[int]]:
        found.clear()
        balancer = problem.balancer(Shuffled(), seed=seed)
        for _ in steps(balancer, sgd(balancer), problem.loader(), epochs=2):
            pass
        return list(found)

    found: list[list[int]] = []
    assert orders(0) == orders(0)
    assert len({tuple(order) for order in orders(0) + orders(1)}) == 4


class Counting(Method):
    """Counts the updates that it is asked about."""

    category = "optimization"
    asked = 0

    def gradients(self, update: Update) -> None:
        self.asked += 1


def test_a_method_does_not_see_gradients_that_overflowed_in_a_fused_step() -> None:
    problem = Problem()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    balancer = problem.balancer(Counting(), scaler=scaler)
    optimizer = sgd(balancer, fused=True)
    before = state(balancer)
    for overflows in (True, False):
        scaler.scale(balancer(*first_batch(problem))).backward()
        if overflows:
            next(p.grad for p in balancer.parameters() if p.grad is not None).fill_(torch.inf)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        assert balancer.method.asked == (0 if overflows else 1)
        if overflows:
            require_equal(state(balancer), before, "An overflow should change nothing.")
