from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from equivox.balancer import Balancer
from equivox.diagnosis.loaders import Finite, Reading, checked
from equivox.fusion import Concat
from equivox.model import Multimodal
from equivox.randomness import generators
from equivox.task import Classification, Regression, Task

NAN = torch.nan


def network(task: Task | None = None, outputs: int = 2) -> Balancer:
    encoders = {"a": nn.Linear(1, 2), "b": nn.Linear(1, 2)}
    model = Multimodal(encoders, Concat({"a": 2, "b": 2}, outputs))
    return Balancer(model, task=task or Classification(2))


def batch(**changes: Any) -> Any:
    inputs = {"a": torch.ones(4, 1), "b": torch.ones(4, 1)} | changes
    return inputs, torch.tensor([0, 1, 0, 1])


def loaders(**changes: Any) -> dict[str, Any]:
    return {"train": [batch()], "validation": [batch()], "test": [batch()]} | changes


def test_samples_keep_their_numbers() -> None:
    bad = torch.tensor([[1.0], [NAN], [1.0], [1.0]])
    worse = torch.tensor([[1.0], [1.0], [1.0], [torch.inf]])
    read = Finite([batch(a=bad), batch(), batch(b=worse)], "test")
    items = list(read)
    assert [index.tolist() for *_, index in items] == [[0, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert [len(inputs["b"]) for inputs, *_ in items] == [3, 4, 3]
    assert read.kept == 10
    own = (*batch(a=bad), torch.tensor([7, 5, 3, 1]))
    ((_, target, index),) = Finite([own], "test")
    assert (index.tolist(), target.tolist()) == ([7, 3, 1], [0, 0, 1])


def test_targets_and_parts_of_inputs_count() -> None:
    inputs, _ = batch(a=(torch.tensor([[1.0], [NAN], [1.0], [1.0]]), torch.zeros(4, 1).bool()))
    target = torch.tensor([1.0, 1.0, NAN, 1.0])
    ((kept, _, index),) = Finite([(inputs, target)], "test")
    assert index.tolist() == [0, 3]
    assert [len(x) for x in kept["a"]] == [2, 2]


def test_what_is_absent_may_hold_anything() -> None:
    there = torch.tensor([True, False, True, True])
    x = torch.tensor([[1.0], [NAN], [1.0], [NAN]])
    ((inputs, _, index),) = Finite([batch(a=x, present={"a": there})], "test")
    assert index.tolist() == [0, 1, 2]
    assert inputs["present"]["a"].tolist() == [True, False, True]
    ((_, _, index),) = Finite([batch(a=x, present={"a": False})], "test")
    assert len(index) == 4


@pytest.mark.parametrize(
    ("items", "found"),
    [
        ([], "Found 0 of 0. Pass a loader of more samples"),
        ([({"a": torch.ones(1, 1)}, torch.zeros(1))], "Found 1 of 1"),
        ([batch(b=torch.full((4, 1), NAN))], "Found 0 of 4: NaN or infinity in 4 of `b`. Repair"),
    ],
)
def test_fewer_than_two_samples(items: list[Any], found: str) -> None:
    with pytest.raises(ValueError, match=found):
        list(Finite(items, "test"))


def test_the_loaders_generator_is_found() -> None:
    generator = torch.Generator()
    loader = DataLoader(TensorDataset(torch.ones(4)), shuffle=True, generator=generator)
    assert generators(Finite(loader, "test")) == [generator]
    assert generators(copy.copy(Reading(loader))) == [generator]
    with pytest.raises(AttributeError):
        _ = Reading([]).generator


def test_good_loaders_pass_and_nothing_is_drawn() -> None:
    balancer, state = network(), torch.get_rng_state()
    found = checked(loaders(), balancer)
    assert list(found) == ["train", "validation", "test"]
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"train": [batch()], "test": [batch()]}, r"Found no \['validation'\]"),
        (loaders(validation=None), r"Found no \['validation'\]"),
        (loaders(tset=[batch()]), "Found `tset`. Did you mean `test`?"),
        (loaders(test=[batch(c=torch.ones(4, 1))]), "The test data do not fit.*Found `c`"),
        (loaders(train=[({"a": torch.ones(4, 1)}, torch.ones(4))]), "The train data.*Found no `b`"),
        (
            loaders(test=[({"a": torch.ones(4, 1), "present": {"b": False}}, torch.ones(4))]),
            "declare them absent by a mask",
        ),
        (loaders(test=[(batch()[0], torch.tensor([0, 1, 5, 1]))]), r"Labels should lie.*\[5\]"),
        (loaders(test=[(batch()[0], torch.ones(4, 1).long())]), "The target should be class"),
    ],
)
def test_what_cannot_serve_is_refused(given: dict[str, Any], found: str) -> None:
    with pytest.raises(ValueError, match=found):
        checked(given, network())


def test_a_task_of_other_targets_is_refused() -> None:
    with pytest.raises(ValueError, match=r"The train data do not fit the network\. Logits"):
        checked(loaders(), network(Regression(1)))


@pytest.mark.parametrize("once", [iter([batch()]), 3])
def test_a_loader_is_read_again_and_again(once: Any) -> None:
    with pytest.raises(TypeError, match=r"again and again.*for `test`"):
        checked(loaders(test=once), network())
