"""Gradients: scaled on their way back, and measured over lists of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equivox.functional.precision import at_least_float32

if TYPE_CHECKING:
    from jaxtyping import Float


def scale_gradient(
    x: Float[Tensor, "*shape"], k: float | Float[Tensor, ""] | Float[Tensor, " batch"]
) -> Float[Tensor, "*shape"]:
    """`x`, unchanged, whose gradient is multiplied by `k` on the way back.

    :param k: One factor, or one for each row of `x`. It is a constant: no gradient flows into it.
    :raises ValueError: If `k` is neither a scalar nor one number for each row of `x`.

    >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> scale_gradient(x, 0.5).sum().backward()
    >>> x.grad
    tensor([0.5000, 0.5000])
    """
    if not isinstance(k, Tensor):
        k = torch.full((), k, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    if k.ndim > 0:
        if k.shape != x.shape[:1]:
            raise ValueError(
                "`k` should be a scalar or have one entry for each row of `x`. "
                f"Found `k` of shape {tuple(k.shape)} for `x` of shape {tuple(x.shape)}."
            )
        k = k.reshape(-1, *[1] * (x.ndim - 1))
    scaled: Tensor = _ScaleGradient.apply(x, k)  # type: ignore[no-untyped-call]
    return scaled


class _ScaleGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, k: Tensor) -> Tensor:  # noqa: ARG004 - `k` is for the way back
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (k,) = ctx.saved_tensors
        # The product in the wider type: a 0-dim factor would otherwise be rounded to bfloat16.
        wide = gradient.to(torch.promote_types(gradient.dtype, k.dtype))
        return (wide * k).to(gradient.dtype), None


def flat_dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Float[Tensor, ""]:
    """The inner product of two lists of tensors, as if each were one long vector, in float32.

    >>> flat_dot([torch.ones(2), torch.ones(3)], [torch.ones(2), torch.full((3,), 2.0)])
    tensor(8.)
    """
    if len(a) != len(b):
        raise ValueError(f"Both lists should be equally long. Found {len(a)} and {len(b)} tensors.")
    if not a:
        return torch.zeros(())
    wide_a, wide_b = [at_least_float32(t) for t in a], [at_least_float32(t) for t in b]
    products = torch._foreach_mul(wide_a, wide_b)
    return torch.stack([product.sum() for product in products]).sum()


def flat_norm(tensors: Sequence[Tensor]) -> Float[Tensor, ""]:
    """The Euclidean norm of a list of tensors, as if it were one long vector, in float32.

    >>> flat_norm([torch.tensor([3.0]), torch.tensor([[4.0]])])
    tensor(5.)
    """
    if not tensors:
        return torch.zeros(())
    norms = torch._foreach_norm([at_least_float32(tensor) for tensor in tensors])
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return norm
