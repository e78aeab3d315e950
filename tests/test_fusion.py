"""The ready fusions: what each computes, with one to four modalities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from equivox.fusion import (
    Attention,
    Concat,
    FiLM,
    Fusion,
    Gated,
    SharedHead,
    Sum,
    mean_of_others,
    sum_of,
)

FUSIONS: list[Callable[..., Fusion]] = [Concat, Sum, SharedHead, Gated, FiLM, Attention]
WIDTHS = {"a": 4, "b": 6, "c": 3, "d": 5}


def features(widths: dict[str, int], rows: int = 5) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {m: torch.randn(rows, width) for m, width in widths.items()}


def some(count: int) -> dict[str, int]:
    return dict(list(WIDTHS.items())[:count])


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", FUSIONS)
def test_any_number_of_modalities(kind: Callable[..., Fusion], count: int) -> None:
    torch.manual_seed(0)
    fusion = kind(some(count), 3)
    z = {m: x.requires_grad_() for m, x in features(some(count)).items()}
    logits = fusion(z)
    assert logits.shape == (5, 3)
    logits.square().sum().backward()
    for name, x in z.items():
        assert x.grad is not None, name
        assert (x.grad != 0).any(), name


@pytest.mark.parametrize("kind", FUSIONS)
def test_the_order_of_the_dictionary_does_not_matter(kind: Callable[..., Fusion]) -> None:
    fusion = kind(WIDTHS, 3).eval()
    z = features(WIDTHS)
    torch.testing.assert_close(fusion(dict(reversed(z.items()))), fusion(z))


@pytest.mark.parametrize("kind", FUSIONS)
def test_rows_do_not_depend_on_each_other(kind: Callable[..., Fusion]) -> None:
    fusion = kind(WIDTHS, 3).eval()
    z = features(WIDTHS)
    assert fusion.stackable
    torch.testing.assert_close(fusion({m: x[1:3] for m, x in z.items()}), fusion(z)[1:3])


@pytest.mark.parametrize("kind", FUSIONS)
def test_branches_are_apart_and_inside_the_fusion(kind: Callable[..., Fusion]) -> None:
    fusion = kind(WIDTHS, 3)
    owned = [id(p) for m in WIDTHS for p in fusion.branch(m)]
    assert len(set(owned)) == len(owned)
    assert set(owned) <= {id(p) for p in fusion.parameters()}


@pytest.mark.parametrize("kind", [Sum, SharedHead, Attention])
def test_a_branch_is_idle_without_its_modality(kind: Callable[..., Fusion]) -> None:
    fusion = kind(WIDTHS, 3)
    z = features(WIDTHS)
    fusion({m: x for m, x in z.items() if m != "a"}).square().sum().backward()
    assert fusion.branch("a")
    assert all(p.grad is None for p in fusion.branch("a"))
    assert all(p.grad is not None for m in "cd" for p in fusion.branch(m))


@pytest.mark.parametrize("kind", FUSIONS)
def test_bad_widths_and_outputs(kind: Callable[..., Fusion]) -> None:
    with pytest.raises(ValueError, match=r"at least one modality\. Found an empty `widths`"):
        kind({}, 3)
    with pytest.raises(ValueError, match=r"should be positive\. Found \{'a': 0\}"):
        kind({"a": 0}, 3)
    with pytest.raises(ValueError, match=r"should be positive\. Found 0"):
        kind({"a": 4}, 0)


@pytest.mark.parametrize("bias", [True, False])
def test_concat_splits_exactly_by_columns(bias: bool) -> None:
    fusion, z = Concat(WIDTHS, 3, bias=bias), features(WIDTHS)
    shares = fusion.unimodal(z)
    torch.testing.assert_close(sum_of(shares.values()), fusion(z))
    w = fusion.linear.weight[:, 4:10]
    expected = z["b"] @ w.T + (fusion.linear.bias / 4 if bias else 0)
    torch.testing.assert_close(shares["b"], expected)
    assert torch.equal(fusion.weights()["b"], w)


@pytest.mark.parametrize("kind", [Concat, Sum])
def test_dense_shares_add_up(kind: Any) -> None:
    fusion = kind({"a": 4, "b": 3}, 2, pool=False)
    z = {"a": torch.randn(3, 4, 5, 6), "b": torch.randn(3, 3, 5, 6)}
    logits = fusion(z)
    assert logits.shape == (3, 2, 5, 6)
    torch.testing.assert_close(sum_of(fusion.unimodal(z).values()), logits)
    pixel = {m: x[1, :, 2, 3].view(1, -1, 1, 1) for m, x in z.items()}
    torch.testing.assert_close(fusion(pixel).flatten(), logits[1, :, 2, 3])


def test_sum_and_shared_head_add_what_they_say_of_each() -> None:
    z = features(WIDTHS)
    for fusion in (Sum(WIDTHS, 3), SharedHead(WIDTHS, 3), SharedHead(WIDTHS, 3, hidden=7, dim=2)):
        torch.testing.assert_close(sum_of(fusion.unimodal(z).values()), fusion(z))


def test_a_partial_fusion_does_without_a_modality() -> None:
    z = features(WIDTHS)
    lacking = {m: z[m] for m in "abd"}
    for fusion in (Sum(WIDTHS, 3), SharedHead(WIDTHS, 3)):
        expected = sum_of(x for m, x in fusion.unimodal(z).items() if m != "c")
        torch.testing.assert_close(fusion(lacking), expected)


def test_the_boost_of_a_shared_head() -> None:
    fusion, z = SharedHead(WIDTHS, 3, boost=True), features(WIDTHS)
    before = fusion(z)
    assert fusion.boost is not None
    with torch.no_grad():
        fusion.boost.fill_(2.0)
    torch.testing.assert_close(fusion(z), 2 * before)
    torch.testing.assert_close(sum_of(fusion.unimodal(z).values()), before)


def test_gates_by_hand() -> None:
    fusion, z = Gated({"a": 2, "b": 2}, 3), {"a": torch.randn(4, 2), "b": torch.randn(4, 2)}
    a, b = fusion.maps["a"](z["a"]), fusion.maps["b"](z["b"])
    crossed = fusion.crossed(z)
    torch.testing.assert_close(crossed["a"], torch.sigmoid(b) * a)
    torch.testing.assert_close(crossed["b"], torch.sigmoid(a) * b)


def test_film_by_hand() -> None:
    fusion, z = FiLM({"a": 2, "b": 2}, 3), {"a": torch.randn(4, 2), "b": torch.randn(4, 2)}
    gamma, beta = fusion.maps["b"](z["b"]).chunk(2, -1)
    torch.testing.assert_close(fusion.crossed(z)["a"], gamma * z["a"] + beta)


def sequences() -> tuple[dict[str, Any], Tensor]:
    torch.manual_seed(2)
    padding = torch.tensor([[False] * 3 + [True] * 2, [False] * 5, [False] + [True] * 4])
    return {"a": (torch.randn(3, 5, 4), padding), "b": torch.randn(3, 6)}, padding


@pytest.mark.parametrize("kind", FUSIONS)
@pytest.mark.parametrize("training", [True, False])
def test_padding_is_never_read(kind: Callable[..., Fusion], training: bool) -> None:
    torch.manual_seed(0)
    fusion = kind({"a": 4, "b": 6}, 3).train(training)
    z, padding = sequences()
    other = z["a"][0].masked_fill(padding.unsqueeze(-1), 1e3)
    torch.testing.assert_close(fusion(z | {"a": (other, padding)}), fusion(z))
    moved = z["a"][0].masked_fill(~padding.unsqueeze(-1), 1e3)
    assert not torch.allclose(fusion(z | {"a": (moved, padding)}), fusion(z))


@pytest.mark.parametrize("training", [True, False])
def test_attention_equals_the_shorter_sequence(training: bool) -> None:
    torch.manual_seed(0)
    fusion = Attention({"a": 4, "b": 6}, 3, layers=2).train(training)
    z, _ = sequences()
    short = {"a": z["a"][0][:1, :3], "b": z["b"][:1]}
    torch.testing.assert_close(fusion(z)[:1], fusion(short), rtol=1e-4, atol=1e-5)


def test_attention_in_training_and_inference_agree() -> None:
    torch.manual_seed(0)
    fusion = Attention({"a": 4, "b": 6}, 3, layers=2)
    z, _ = sequences()
    trained = fusion(z)
    with torch.no_grad():
        torch.testing.assert_close(fusion.eval()(z), trained, rtol=1e-4, atol=1e-5)


def test_attention_without_a_modality_and_on_maps() -> None:
    fusion = Attention({"a": 4, "b": 6}, 3)
    z, padding = sequences()
    assert fusion({"a": z["a"]}).shape == (3, 3)
    tokens = torch.randn(3, 6, 4)  # two positions by three
    maps = tokens.mT.reshape(3, 4, 2, 3)
    torch.testing.assert_close(fusion({"a": maps}), fusion({"a": tokens}))
    attention = (~padding).long()
    torch.testing.assert_close(fusion(z | {"a": (z["a"][0], attention)}), fusion(z))
    with pytest.raises(ValueError, match=r"`dim` should be a multiple of `heads`"):
        Attention({"a": 4}, 3, dim=6, heads=4)


def test_the_mean_of_others() -> None:
    parts = {"a": torch.tensor(1.0), "b": torch.tensor(2.0), "c": torch.tensor(4.0)}
    assert mean_of_others(parts, "a") == 3
    assert mean_of_others({"a": parts["a"]}, "a") is None
