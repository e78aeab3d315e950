"""Scaled gradients in every precision, and inner products over lists of tensors."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from equivox.functional import flat_dot, flat_norm, gradients, scale_gradient
from equivox.functional.gradients import clip_where_large_


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("k", [0.3, torch.tensor(0.3), torch.tensor([0.3, 0.3, 0.3])])
def test_forward_is_identical_and_gradient_is_scaled(dtype: torch.dtype, k: float | Tensor) -> None:
    x = torch.randn(3, 4, dtype=dtype, requires_grad=True)
    upstream = torch.randn(3, 4, dtype=dtype)
    y = scale_gradient(x, k)
    assert torch.equal(y, x)
    (gradient,) = torch.autograd.grad(y, x, upstream)
    assert gradient.dtype == dtype
    factor = torch.as_tensor(k, dtype=torch.float64 if isinstance(k, float) else torch.float32)
    wide = torch.promote_types(dtype, factor.dtype)
    expected = (upstream.to(wide) * factor.flatten()[0].to(wide)).to(dtype)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=0)


def test_one_factor_for_each_sample() -> None:
    x = torch.randn(2, 3, 5, requires_grad=True)
    scale_gradient(x, torch.tensor([0.0, 2.0])).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.tensor([0.0, 2.0])[:, None, None].expand(2, 3, 5))


@given(k=st.floats(-5, 5), other=st.floats(-5, 5))
def test_factors_multiply(k: float, other: float) -> None:
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    scale_gradient(scale_gradient(x, k), other).sum().backward()
    torch.testing.assert_close(x.grad, torch.full((2,), k * other, dtype=torch.float64))


def test_no_gradient_flows_into_the_factor() -> None:
    k = torch.tensor(2.0, requires_grad=True)
    x = torch.ones(2, requires_grad=True)
    scale_gradient(x * k, k).sum().backward()
    assert k.grad is not None
    assert float(k.grad) == 4.0  # from x * k alone: two entries, each scaled by 2


def test_double_backward() -> None:
    x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    y = (scale_gradient(x, 3.0) ** 2).sum()
    (first,) = torch.autograd.grad(y, x, create_graph=True)
    torch.testing.assert_close(first, 6 * x)
    (second,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(second, torch.full((2,), 18.0, dtype=torch.float64))


def test_batched_gradients() -> None:
    def gradient(x: Tensor) -> Tensor:
        return torch.func.grad(lambda z: (scale_gradient(z, 0.5) ** 2).sum())(x)

    x = torch.randn(4, 3)
    torch.testing.assert_close(torch.func.vmap(gradient)(x), x)


def without_shape_checks(module: ModuleType) -> ModuleType:
    """The module as users import it: the shape checks of the tests do not compile."""
    assert module.__file__ is not None
    spec = spec_from_file_location(module.__name__, module.__file__)
    assert spec is not None
    assert spec.loader is not None
    plain = module_from_spec(spec)
    spec.loader.exec_module(plain)
    return plain


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # by the compiler itself
def test_compiled_equals_eager() -> None:
    scale = without_shape_checks(gradients).scale_gradient

    def loss(x: Tensor, k: Tensor) -> Tensor:
        return (scale(x * 2, k) ** 2).sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    for k in (torch.tensor(0.25), torch.tensor(4.0)):
        x = torch.randn(3, 2, requires_grad=True)
        eager = torch.autograd.grad(loss(x, k), x)
        torch.testing.assert_close(torch.autograd.grad(compiled(x, k), x), eager)


def test_factor_of_the_wrong_shape() -> None:
    with pytest.raises(ValueError, match=r"`k` of shape \(3,\) for `x` of shape \(2, 3\)"):
        scale_gradient(torch.ones(2, 3), torch.ones(3))


def tensors(seed: int, count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(), (3,), (2, 3), (4, 1, 2)]
    return [torch.randn(shapes[i % 4], generator=generator) for i in range(count)]


@given(seed=st.integers(0, 999), count=st.integers(0, 8))
def test_equal_one_long_vector(seed: int, count: int) -> None:
    a, b = tensors(seed, count), tensors(seed + 1, count)
    flat_a = torch.cat([torch.empty(0), *(t.flatten() for t in a)])
    flat_b = torch.cat([torch.empty(0), *(t.flatten() for t in b)])
    torch.testing.assert_close(flat_dot(a, b), flat_a @ flat_b, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(flat_norm(a), flat_a.norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_accumulated_in_float32(dtype: torch.dtype) -> None:
    gradients = [torch.full((10_000,), 3.0, dtype=dtype)] * 2
    assert flat_dot(gradients, gradients).dtype == torch.float32
    assert float(flat_dot(gradients, gradients)) == pytest.approx(180_000)  # float16 ends at 65504
    assert float(flat_norm(gradients)) == pytest.approx(180_000**0.5)


def test_float64_stays_float64() -> None:
    one = [torch.ones(2, dtype=torch.float64)]
    assert flat_dot(one, one).dtype == flat_norm(one).dtype == torch.float64


def test_lists_of_unequal_length() -> None:
    with pytest.raises(ValueError, match="Found 1 and 2 tensors"):
        flat_dot([torch.ones(1)], [torch.ones(1)] * 2)


@given(seed=st.integers(0, 99), limit=st.floats(0.1, 5))
def test_all_gradients_are_clipped_where_a_watched_entry_is_large(seed: int, limit: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    before = [torch.randn(shape, generator=generator) for shape in ((3, 2), (4,))]
    after = [g.clone() for g in before]
    clip_where_large_(after, after[:1], limit)
    large = bool((before[0].abs() > limit).any())
    factor = min(1.0, limit / float(flat_norm(before))) if large else 1.0
    for new, old in zip(after, before, strict=True):
        torch.testing.assert_close(new, factor * old)


def test_nothing_watched_nothing_clipped() -> None:
    g = torch.tensor([9.0])
    clip_where_large_([g], [], 1.0)
    assert g == 9
