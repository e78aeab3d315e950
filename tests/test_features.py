"""Features: trees of tensors, pooling, projection and blanks."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from equivox.features import (
    blanked,
    leaves,
    map_tensors,
    map_values,
    padding,
    project,
    values,
    vector,
)


class Seen(NamedTuple):
    tokens: Tensor
    mask: Tensor | None


class Answer(OrderedDict[str, Any]):
    """An output class that is read by attribute, as those of `transformers`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def test_mapping_keeps_the_types_of_trees() -> None:
    x = torch.ones(2)
    tree = {"a": (x, [x, 3]), "b": Seen(x, None), "c": Answer(hidden=x, pooled=None)}
    found = map_tensors(lambda t: t + 1, tree)
    assert torch.equal(found["a"][0], x + 1)
    assert found["a"][1][1] == 3
    assert isinstance(found["b"], Seen)
    assert isinstance(found["c"], Answer)
    assert torch.equal(found["c"].hidden, x + 1)
    assert found["c"].pooled is None
    assert torch.equal(tree["c"]["hidden"], x)  # type: ignore[index,call-overload]


def test_masks_are_no_values() -> None:
    mask = torch.tensor([[False, True]])
    tokens = torch.ones(1, 2, 3)
    doubled = map_values(lambda t: 2 * t, (mask, tokens))
    assert doubled[0] is mask
    assert torch.equal(doubled[1], 2 * tokens)
    assert values((mask, tokens)) is tokens
    assert [leaf.ndim for leaf in leaves({"m": mask, "t": [tokens]})] == [2, 3]


def test_a_feature_has_a_floating_tensor() -> None:
    with pytest.raises(TypeError, match=r"should hold a floating tensor\. Found `tuple`"):
        values((torch.ones(2, dtype=torch.long),))


def test_padding_of_either_convention() -> None:
    tokens = torch.ones(1, 3, 4)
    mask = torch.tensor([[False, False, True]])
    assert padding(tokens) is None
    assert torch.equal(padding((tokens, mask)), mask)  # type: ignore[arg-type]
    attention = torch.tensor([[1, 1, 0]])
    assert torch.equal(padding({"x": tokens, "attention_mask": attention}), mask)  # type: ignore[arg-type]
    assert padding((tokens, torch.ones(1, 5, dtype=torch.bool))) is None


def test_pooling_to_one_vector_a_sample() -> None:
    x = torch.arange(24.0)
    assert torch.equal(vector(x.view(4, 6)), x.view(4, 6))
    assert vector(x).shape == (24, 1)
    assert torch.equal(vector(x.view(2, 3, 4)), x.view(2, 3, 4).mean(1))
    assert torch.equal(vector(x.view(2, 3, 2, 2)), x.view(2, 3, 4).mean(-1))


def test_padding_does_not_enter_the_mean_whatever_it_holds() -> None:
    tokens = torch.tensor([[[1.0], [3.0], [torch.nan]], [[5.0], [7.0], [9.0]]])
    mask = torch.tensor([[False, False, True], [True, True, True]])
    assert torch.equal(vector((tokens, mask)), torch.tensor([[2.0], [0.0]]))


def test_dense_features_are_projected_at_every_position() -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(3, 2), torch.randn(4, 3, 5, 6)
    dense = project(linear, x, pool=False)
    assert dense.shape == (4, 2, 5, 6)
    torch.testing.assert_close(dense[1, :, 2, 3], linear(x[1, :, 2, 3]))
    torch.testing.assert_close(dense.mean((2, 3)), project(linear, x))


def test_blanks() -> None:
    x, mask = torch.ones(3, 2), torch.tensor([True, False, True])
    assert blanked(x, True) is x
    assert torch.equal(blanked(x, False), torch.zeros(3, 2))
    assert torch.equal(blanked(x, mask), torch.tensor([[1.0, 1], [0, 0], [1, 1]]))
    found = blanked(x, mask, torch.tensor([5.0, 6]))
    assert torch.equal(found, torch.tensor([[1.0, 1], [5, 6], [1, 1]]))


def test_blanks_of_a_sequence_keep_its_mask() -> None:
    tokens, mask = torch.ones(2, 3, 4), torch.tensor([[False, False, True]] * 2)
    extra = torch.ones(2, 7)
    found = blanked((mask, tokens, extra), torch.tensor([False, True]), torch.full((4,), 2.0))
    assert found[0] is mask
    assert torch.equal(found[1], torch.stack([torch.full((3, 4), 2.0), torch.ones(3, 4)]))
    assert torch.equal(found[2], torch.stack([torch.zeros(7), torch.ones(7)]))


def test_blanks_stop_gradients_and_nan() -> None:
    x = torch.tensor([[torch.nan], [2.0]], requires_grad=True)
    blanked(x, torch.tensor([False, True])).sum().backward()
    assert torch.equal(x.grad, torch.tensor([[0.0], [1.0]]))  # type: ignore[arg-type]
