"""The data object, its samples and its loaders, and the way data sets are found by name."""

import json

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from equivox import data
from equivox.data import Samples
from equivox.task import Classification, Regression

MADE = [
    "latent",
    "latent2",
    "latent3",
    "balanced",
    "noise",
    "redundant",
    "xor",
    "latent_regression",
    "digits",
]


@pytest.fixture
def samples() -> Samples:
    return Samples({"a": torch.arange(10.0)[:, None], "b": torch.ones(10, 2, 3)}, torch.arange(10))


def test_a_sample_is_inputs_target_and_index(samples: Samples) -> None:
    inputs, target, index = samples[-3]
    assert inputs["a"].tolist() == [7.0]
    assert inputs["b"].shape == (2, 3)
    assert target.item() == index.item() == 7
    assert index.dtype == torch.int64


def test_an_index_out_of_range_ends_iteration(samples: Samples) -> None:
    with pytest.raises(IndexError, match="below 10"):
        samples[10]
    assert len([samples[i] for i in range(len(samples))]) == 10


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_in_one_piece_equal_stacked_samples(samples: Samples, workers: int) -> None:
    loader = DataLoader(samples, 4, collate_fn=Samples.collate, num_workers=workers)
    stacked = Samples.collate([samples[i] for i in range(4)])
    for whole, single in zip(_flat(next(iter(loader))), _flat(stacked), strict=True):
        assert torch.equal(whole, single)
    assert [len(target) for _, target, _ in loader] == [4, 4, 2]


def test_a_subset_keeps_the_index_in_the_split(samples: Samples) -> None:
    loader = DataLoader(Subset(samples, [8, 2]), 2, collate_fn=Samples.collate)
    assert next(iter(loader))[2].tolist() == [8, 2]


@pytest.mark.parametrize("inputs", [{}, {"a": torch.zeros(3, 1)}])
def test_unequal_or_no_modalities_are_refused(inputs: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="equally many samples"):
        Samples(inputs, torch.zeros(4))


@pytest.mark.parametrize("name", MADE)
def test_a_data_set_states_its_facts(name: str) -> None:
    made = data.load(name)
    assert name in data.names()
    assert set(made.architectures) == set(made.shapes) == set(made.modalities)
    inputs, target, _ = next(iter(made.loader("train")))
    for modality, encoder in made.encoders().items():
        assert inputs[modality].shape[1:] == made.shapes[modality]
        features = encoder(inputs[modality])
        assert features.shape == (made.recipe.batch_size, made.widths[modality])
    loss = made.task.loss(torch.zeros(len(target), made.outputs), target)
    assert loss.isfinite()
    assert made.task == (Classification(made.outputs) if made.classes else Regression(1))


@pytest.mark.parametrize("name", MADE)
def test_recorded_options_make_the_same_data(name: str) -> None:
    made = data.load(name, seed=5)
    options = json.loads(json.dumps(made.options))
    again, other = data.load(name, **options), data.load(name, seed=6)
    for modality in made.modalities:
        assert torch.equal(made.test.inputs[modality], again.test.inputs[modality])
        assert not torch.equal(made.test.inputs[modality], other.test.inputs[modality])


def test_only_encoders_draw_from_the_global_random_state() -> None:
    state = torch.get_rng_state()
    made = data.load("digits")
    assert made.widths == {"gray": 32, "colour": 32}
    assert torch.equal(state, torch.get_rng_state())
    first, second = (_seeded(made.encoders) for _ in range(2))
    for one, two in zip(first["gray"].parameters(), second["gray"].parameters(), strict=True):
        assert torch.equal(one, two)


def test_loaders_shuffle_the_training_split_alone() -> None:
    made = data.load("latent2", samples=200)
    orders = {s: torch.cat([i for *_, i in made.loader(s, 7)]) for s in ("train", "test")}
    assert sorted(orders["train"].tolist()) == list(range(100))
    assert orders["train"].tolist() != list(range(100))
    assert orders["test"].tolist() == list(range(80))
    one, two = (
        torch.cat([i for *_, i in made.loader("train", generator=torch.Generator())])
        for _ in range(2)
    )
    assert torch.equal(one, two)
    assert len(made.loader("train", batch_size=30, drop_last=True)) == 3


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean `latent2`"):
        data.load("latnt2")
    with pytest.raises(ValueError, match="Did you mean `samples`"):
        data.load("latent2", sample=10)
    with pytest.raises(ValueError, match="Did you mean `validation`"):
        data.load("latent2").loader("valid")


def _flat(batch: data.Sample) -> list[Tensor]:
    inputs, target, index = batch
    return [*inputs.values(), target, index]


def _seeded(make: object) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return make()  # type: ignore[operator]
