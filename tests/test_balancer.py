"""The balancer in a user's loop: what it accepts, refuses, keeps and leaves alone."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equivox as ev
from equivox.method import Batch, Method
from equivox.run import Run
from equivox.step import Step, Update
from equivox.testing.checks import require_close, require_equal
from equivox.testing.problem import Problem, sgd, state, steps


class Halving(Method):
    """Halve every encoder's gradient."""

    category = "optimization"

    def gradients(self, update: Update) -> None:
        for modality in update.model.modalities:
            for gradient in update.gradient(modality):
                gradient.mul_(0.5)


class Alternating(Method):
    """One modality a batch, the others serve."""

    category = "optimization"
    leaves_unused = True

    def epoch(self, batches: Iterable[Batch], run: Run) -> Iterator[Batch]:
        for number, batch in enumerate(batches):
            yield batch.with_(learn={run.model.modalities[number % 2]})


def first_batch(problem: Problem) -> tuple[Any, ...]:
    return tuple(next(iter(problem.loader())))


# ── the loop ────────────────────────────────────────────────────────────────────────────────────


def test_joint_training_is_the_plain_loop_bit_for_bit() -> None:
    problem = Problem(random=True)
    balancer = problem.balancer(ev.Joint())
    torch.manual_seed(0)
    for _ in steps(balancer, sgd(balancer), problem.loader(), epochs=2):
        pass
    model = problem.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    torch.manual_seed(0)
    for _ in range(2):
        for inputs, target, _ in problem.loader():
            nn.functional.cross_entropy(model(inputs).logits, target).backward()
            optimizer.step()
            optimizer.zero_grad()
    require_equal(state(balancer.model), dict(model.state_dict()), "Joint should be plain.")  # type: ignore[arg-type]


def test_gradients_are_changed_once_an_update() -> None:
    problem = Problem()
    halved, plain = problem.balancer(Halving()), problem.balancer(ev.Joint())
    inputs, target, _ = first_batch(problem)
    optimizer = sgd(halved)
    for part in (slice(0, 4), slice(4, 8)):
        micro = {m: x[part] for m, x in inputs.items()}
        (halved(micro, target[part]) / 2).backward()
    optimizer.step()
    plain(inputs, target).backward()
    for modality in plain.model.modalities:
        for p, q in zip(
            halved.model.encoder_parameters(modality),
            plain.model.encoder_parameters(modality),
            strict=True,
        ):
            torch.testing.assert_close(p.grad, q.grad / 2)
    torch.testing.assert_close(
        halved.model.fusion.linear.weight.grad, plain.model.fusion.linear.weight.grad
    )


def test_detach_ends_all_of_it() -> None:
    problem = Problem()
    balancer = problem.balancer(Halving())
    optimizer = sgd(balancer)
    balancer.detach()
    assert not optimizer._optimizer_step_pre_hooks
    with pytest.raises(RuntimeError, match="Found no optimizer"):
        balancer(*first_batch(problem))


def test_eval_mode_is_the_loss_of_the_prediction() -> None:
    problem = Problem()
    balancer = problem.balancer(Alternating()).eval()
    inputs, target, _ = first_batch(problem)
    loss = balancer(inputs, target)
    expected = nn.functional.cross_entropy(balancer.predict(inputs), target)
    torch.testing.assert_close(loss, expected)


def test_who_serves_gets_no_gradient_and_does_not_move() -> None:
    problem = Problem(random=True)
    balancer = problem.balancer(Alternating())
    optimizer = sgd(balancer)
    served = ["video", "audio", "video"]
    before = state(balancer)
    for name, _ in zip(served, steps(balancer, optimizer, problem.loader()), strict=True):
        assert all(p.grad is None for p in balancer.model.encoders[name].parameters())
        if name == "video" and before:
            for key, value in state(balancer).items():
                if "encoders.video" in key:
                    assert torch.equal(value, before[key])
            before = {}


def test_clipping_comes_after_the_method() -> None:
    problem = Problem()
    balancer = problem.balancer(Halving(), clip=1e-3)
    optimizer = sgd(balancer)
    balancer(*first_batch(problem)).backward()
    optimizer.step()
    gradients = [p.grad for p in balancer.parameters() if p.grad is not None]
    norm = torch.stack([g.norm() for g in gradients]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_own_parameter_groups() -> None:
    problem = Problem()

    class Slow(Method):
        """One encoder at a tenth of the rate."""

        category = "optimization"
        made: Any = None

        def setup(self, model: ev.Multimodal, task: ev.Task) -> ev.Task:
            self.made = list(model.encoders["audio"].parameters())
            return task

        def groups(self) -> list[dict[str, Any]]:
            return [{"params": self.made, "lr_scale": 0.1, "weight_decay": 0.0}]

    balancer = problem.balancer(Slow())
    optimizer = sgd(balancer)
    sizes = [(len(g["params"]), g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
    assert sizes == [(6, 0.1, 0.01), (4, pytest.approx(0.01), 0.0)]
    balancer.attach(optimizer)  # again: nothing changes
    assert len(optimizer.param_groups) == 2


def test_copies_are_independent() -> None:
    problem = Problem()
    balancer = problem.balancer(ev.OGMGE())
    for _ in steps(balancer, sgd(balancer), problem.loader()):
        pass
    before = state(balancer)
    generators = torch.get_rng_state()
    fork = balancer.fork()
    fork.fit(problem.loader(), epochs=2, validation=problem.loader())
    require_equal(state(balancer), before, "A fork should leave the original alone.")
    assert torch.equal(torch.get_rng_state(), generators)
    assert not torch.equal(
        next(fork.balancer.model.parameters()), next(balancer.model.parameters())
    )


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.Adagrad, torch.optim.RMSprop])
def test_forks_copy_any_optimizer(optimizer: Any) -> None:
    problem = Problem()
    balancer = problem.balancer(ev.Joint())
    balancer.attach(optimizer(balancer.parameters(), lr=0.05))
    fork = balancer.fork()
    before = fork.losses(problem.loader()).mean()
    fork.fit(problem.loader(), epochs=5)
    assert type(fork.optimizer) is optimizer
    assert fork.optimizer.param_groups[0]["lr"] == 0.05
    assert fork.losses(problem.loader()).mean() < before


def test_collected_rows_come_in_the_order_of_the_samples() -> None:
    problem = Problem(random=True)
    balancer = problem.balancer(ev.Joint())
    rows = balancer.collect(
        problem.loader(), lambda o, b: {"index": b.index, "logits": {"all": o.logits}}
    )
    assert rows["index"].tolist() == list(range(24))
    assert rows["logits"]["all"].shape == (24, 3)
    assert balancer.training


# ── saving ──────────────────────────────────────────────────────────────────────────────────────


def test_a_break_starts_the_next_epoch() -> None:
    problem = Problem()
    balancer = problem.balancer(ev.Joint())
    optimizer = sgd(balancer)
    for _ in steps(balancer, optimizer, problem.loader()):
        break
    assert balancer.progress.epoch == 0
    assert len(list(steps(balancer, optimizer, problem.loader()))) == 3
    assert balancer.progress.epoch == 1


def test_a_state_in_the_middle_of_an_update_is_refused() -> None:
    problem = Problem()
    balancer = problem.balancer(Halving())
    sgd(balancer)
    balancer(*first_batch(problem)).backward()
    with pytest.raises(RuntimeError, match=r"Save after `optimizer\.step"):
        balancer.state_dict()


def test_an_update_that_a_scaler_skipped_is_forgotten() -> None:
    problem = Problem()
    balancer = problem.balancer(Halving())
    optimizer = sgd(balancer)
    balancer(*first_batch(problem)).backward()
    optimizer.zero_grad()  # as GradScaler leaves it, without a step
    balancer.state_dict()
    assert balancer._pending.update is None


def test_checkpoints_of_others_are_refused() -> None:
    saved = Problem().balancer(ev.OGMGE()).state_dict()
    with pytest.raises(ValueError, match="same method"):
        Problem().balancer(ev.Joint()).load_state_dict(saved)
    with pytest.raises(ValueError, match="same modalities"):
        Problem(modalities=3).balancer(ev.OGMGE()).load_state_dict(saved)
    saved["_extra_state"] = saved["_extra_state"][:-7]
    with pytest.raises(ValueError, match="damaged"):
        Problem().balancer(ev.OGMGE()).load_state_dict(saved)


def test_resuming_needs_the_same_loader() -> None:
    problem = Problem()
    balancer = problem.balancer(ev.Joint())
    training = steps(balancer, sgd(balancer), problem.loader(batch=4))
    for _ in range(5):
        next(training)
    again = problem.balancer(ev.Joint())
    again.load_state_dict(balancer.state_dict())
    with pytest.raises(ValueError, match="that of the checkpoint"):
        list(again.epoch(problem.loader(batch=8)))


def test_workers_do_not_change_where_a_run_resumes() -> None:
    problem = Problem(random=True)

    def loader() -> Any:
        from torch.utils.data import DataLoader

        return DataLoader(problem.data(), batch_size=8, shuffle=True, num_workers=1)

    balancer = problem.balancer(ev.Joint())
    optimizer = sgd(balancer)
    training = steps(balancer, optimizer, loader())
    next(training)
    kept = {k: v.clone() for k, v in balancer.state_dict().items()}, optimizer.state_dict()
    kept[1]["state"] = {
        k: {n: m.clone() for n, m in s.items()} for k, s in kept[1]["state"].items()
    }
    list(training)
    again = problem.balancer(ev.Joint())
    optimizer = sgd(again)
    again.load_state_dict(kept[0])
    optimizer.load_state_dict(kept[1])
    list(steps(again, optimizer, loader()))
    require_equal(state(again), state(balancer), "Resumed should equal uninterrupted.")


# ── bad input ───────────────────────────────────────────────────────────────────────────────────


def test_non_finite_features_are_named() -> None:
    problem = Problem()
    balancer = problem.balancer(ev.Joint())
    inputs, target, index = first_batch(problem)
    inputs["video"][3] = float("nan")
    balancer(inputs, target, index + 100)
    with pytest.raises(FloatingPointError, match=r"`video` in samples \[103\] at training step 0"):
        balancer.state_dict()


def test_non_finite_updates_can_be_left_out() -> None:
    problem = Problem()
    balancer = problem.balancer(Halving(), nonfinite="skip")
    optimizer = sgd(balancer)
    before = state(balancer)
    inputs, target, _ = first_batch(problem)
    balancer({m: x * float("inf") for m, x in inputs.items()}, target).backward()
    optimizer.step()
    require_equal(state(balancer), before, "A skipped update should change nothing.")
    optimizer.zero_grad()
    balancer(inputs, target).backward()
    optimizer.step()
    assert not torch.equal(
        state(balancer)["model.fusion.linear.weight"], before["model.fusion.linear.weight"]
    )


def test_labels_out_of_range() -> None:
    problem = Problem()
    inputs, target, _ = first_batch(problem)
    with pytest.raises(ValueError, match=r"0 … 2.*Found \[7\] in rows \[0\]"):
        problem.balancer(ev.Joint())(inputs, torch.cat([torch.tensor([7]), target[1:]]))


def test_an_encoder_outside_the_optimizer() -> None:
    balancer = Problem().balancer(ev.Joint())
    optimizer = torch.optim.SGD(balancer.model.encoders["audio"].parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"encoders\.video.*outside it"):
        balancer.attach(optimizer)


def test_two_balancers_on_one_optimizer() -> None:
    problem = Problem()
    balancer = problem.balancer(ev.Joint())
    optimizer = sgd(balancer)
    other = ev.Balancer(balancer.model, task=ev.Classification())
    with pytest.raises(ValueError, match="Found another one"):
        other.attach(optimizer)
    balancer.detach()
    other.attach(optimizer)


def test_a_method_that_decides_the_epoch_needs_it() -> None:
    problem = Problem()
    balancer = problem.balancer(Alternating())
    with pytest.raises(RuntimeError, match=r"balancer\.epoch"):
        balancer(*first_batch(problem))


def test_a_method_that_measures_needs_validation_data() -> None:
    class Measuring(Method):
        """Needs held-out data."""

        category = "objective"
        needs_validation = True

    with pytest.raises(ValueError, match="Found no validation loader"):
        ev.Balancer(Problem().model(), Measuring(), task=ev.Classification())


def test_a_method_that_remembers_samples_needs_their_numbers() -> None:
    class Remembering(Method):
        """Needs the numbers of samples."""

        category = "data"
        needs_index = True

    balancer = Problem().balancer(Remembering())
    inputs, target, index = first_batch(Problem())
    balancer(inputs, target, index)
    with pytest.raises(ValueError, match="Found none in the batch"):
        balancer(inputs, target)


def test_batches_left_out_or_exchanged() -> None:
    problem = Problem()
    balancer = problem.balancer(ev.Joint())
    with pytest.raises(RuntimeError, match="Found 3 that did not"):
        list(balancer.epoch(problem.loader()))
    batches = balancer.epoch(problem.loader())
    inputs, target, _ = next(batches)
    with pytest.raises(ValueError, match="in the order"):
        balancer({m: x[:5] for m, x in inputs.items()}, target[:5])


def test_what_a_loader_yields() -> None:
    balancer = Problem().balancer(ev.Joint())
    with pytest.raises(TypeError, match="Found `Tensor`"):
        next(balancer.epoch([torch.ones(3)]))
    with pytest.raises(TypeError, match="dictionary by modality"):
        next(balancer.epoch([(torch.ones(3, 2), torch.ones(3))]))


@pytest.mark.parametrize(
    ("options", "message"), [({"nonfinite": "ignore"}, "nonfinite"), ({"clip": 0.0}, "clip")]
)
def test_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Problem().balancer(ev.Joint(), **options)


# ── chains ──────────────────────────────────────────────────────────────────────────────────────


def test_a_chain_runs_left_to_right_and_nests_epochs() -> None:
    class Doubling(Method):
        """Twice the loss, every batch twice."""

        category = "objective"

        def epoch(self, batches: Iterable[Batch], run: Run) -> Iterator[Batch]:
            for batch in batches:
                yield batch
                yield batch

        def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
            return {name: 2 * loss for name, loss in losses.items()}

    class Adding(Method):
        """One more than the loss."""

        category = "objective"

        def losses(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
            return {name: loss + 1 for name, loss in losses.items()}

    problem = Problem()
    plain = problem.balancer(ev.Joint())(*first_batch(problem))
    for chain, expected in (
        (Doubling() + Adding(), 2 * plain + 1),
        (Adding() + Doubling(), 2 * (plain + 1)),
    ):
        balancer = problem.balancer(chain)
        batches = balancer.epoch(problem.loader())
        torch.testing.assert_close(balancer(*next(batches)), expected)
        assert sum(balancer(*batch).isfinite().item() for batch in batches) == 5


def test_chains_that_cannot_act_together() -> None:
    with pytest.raises(ValueError, match="a method once"):
        ev.OGMGE() + ev.OGMGE()

    class First(Method):
        """Predicts."""

        category = "objective"

        def predict(self, output: ev.Output) -> Tensor:
            return output.logits * 2

    class Second(First):
        """Predicts too."""

    with pytest.raises(ValueError, match="its own prediction"):
        First() + Second()


def test_three_links_make_one_flat_chain() -> None:
    chain = (ev.OGMGE() + Halving()) + Alternating()
    assert [type(m).__name__ for m in chain.methods] == ["OGMGE", "Halving", "Alternating"]
    assert chain.leaves_unused
    balancer = Problem().balancer(chain)
    before = state(balancer)
    for _ in steps(balancer, sgd(balancer), Problem().loader()):
        pass
    with pytest.raises(AssertionError):
        require_close(state(balancer), before, "It should have moved.", 1e-6)


def test_nothing_holds_a_balancer_that_nobody_uses() -> None:
    balancer = Problem().balancer(ev.Joint())
    sgd(balancer)
    gone = weakref.ref(balancer)
    del balancer
    gc.collect()
    assert gone() is None


def test_who_replaces_the_fusion_is_set_up_first_and_who_makes_gradients_acts_first() -> None:
    problem = Problem()
    replaced = problem.balancer(ev.CGGM() + ev.MLA())
    layer = replaced.model.fusion.head[-1]  # type: ignore[union-attr, index]
    assert next(iter(replaced.method.methods[0].pulls.values())).shape == layer.weight.shape  # type: ignore[union-attr, index, operator]
    states = []
    for chain in (ev.MMPareto() + Halving(), Halving() + ev.MMPareto()):
        balancer = problem.balancer(chain)
        for _ in steps(balancer, sgd(balancer), problem.loader()):
            pass
        states.append(state(balancer.model))  # type: ignore[arg-type]
    require_equal(states[0], states[1], "The order should not matter.")


# ── what users do to a balancer ─────────────────────────────────────────────────────────────────


def test_parameters_that_a_method_made_need_an_optimizer() -> None:
    problem = Problem()
    balancer = problem.balancer(ev.UnimodalLosses())
    with pytest.raises(RuntimeError, match=r"parameters of its own.*Found no optimizer"):
        balancer(*first_batch(problem))


def test_new_parameters_learn_as_the_fusion_does() -> None:
    balancer = Problem().balancer(ev.UnimodalLosses())
    groups = [
        {"params": balancer.model.encoders.parameters(), "lr": 1e-5},
        {"params": balancer.model.fusion.parameters()},
    ]
    optimizer = balancer.attach(torch.optim.SGD(groups, lr=0.1))
    heads = {id(p) for p in balancer.model.head_parameters()}
    rates = {g["lr"] for g in optimizer.param_groups for p in g["params"] if id(p) in heads}
    assert rates == {0.1}


def test_an_encoder_may_be_frozen_and_freed_in_mid_training() -> None:
    problem = Problem()
    balancer = problem.balancer(ev.MMPareto())
    optimizer = sgd(balancer)
    encoder = balancer.model.encoders["audio"]
    for learns in (True, False, True):
        encoder.requires_grad_(learns)
        optimizer.zero_grad()
        balancer(*first_batch(problem)).backward()
        assert all((p.grad is not None) == learns for p in encoder.parameters())
        optimizer.step()


def test_a_copy_can_be_made_at_any_time() -> None:
    problem = Problem()
    balancer = problem.balancer(ev.Joint())
    balancer(*first_batch(problem)).backward()
    average = torch.optim.swa_utils.AveragedModel(balancer)
    require_equal(
        dict(average.module.state_dict()), dict(balancer.state_dict()), "A copy is equal."
    )


def test_a_closure_that_is_called_often_takes_one_batch() -> None:
    problem = Problem()
    balancer = problem.balancer(ev.Joint())
    lbfgs = torch.optim.LBFGS(balancer.parameters(), lr=0.01, max_iter=4)
    optimizer: Any = balancer.attach(lbfgs)
    for batch in balancer.epoch(problem.loader()):

        def closure(batch: Any = batch) -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = balancer(*batch)
            loss.backward()
            return loss

        optimizer.step(closure)
        break
    assert balancer.progress.forwards == 1


def test_eval_mode_in_the_loop_is_told_at_once() -> None:
    problem = Problem()
    balancer = problem.balancer(ev.Joint()).eval()
    batch = next(iter(balancer.epoch(problem.loader())))
    with torch.no_grad():
        balancer(*batch)
    with pytest.raises(RuntimeError, match=r"eval mode.*balancer\.train\(\)"):
        balancer(*batch)


def test_other_things_in_place_of_model_and_method() -> None:
    model, task = Problem().model(), ev.Classification()
    for wrong in (nn.Linear(2, 2), nn.DataParallel(model)):
        with pytest.raises(TypeError, match=r"trains a `Multimodal`.*from_model"):
            ev.Balancer(wrong, task=task)  # type: ignore[arg-type]
    for method in (ev.OGMGE, "ogm_ge"):
        with pytest.raises(TypeError, match=r"such as `OGMGE\(\)`"):
            ev.Balancer(model, method, task=task)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unsupported operand"):
        ev.OGMGE() + ev.MMCosine  # type: ignore[operator]


@pytest.mark.parametrize("method", [ev.AMCo, ev.PMR, ev.MLA])
def test_a_stream_does_not_say_how_long_it_is(method: Any) -> None:
    class Stream(torch.utils.data.IterableDataset[Any]):
        """Samples one after another."""

        def __iter__(self) -> Iterator[Any]:
            data = Problem().data()
            return (data[i][:2] for i in range(len(data)))

    balancer = Problem().balancer(method())
    optimizer = sgd(balancer)
    loader = torch.utils.data.DataLoader(Stream(), batch_size=8)
    for loss in steps(balancer, optimizer, loader, epochs=2):
        assert loss.isfinite()
