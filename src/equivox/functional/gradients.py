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


def clip_where_large_(gradients: Sequence[Tensor], watched: Sequence[Tensor], limit: float) -> None:
    """Bound the norm of all gradients by `limit`, if an entry of the watched ones exceeds it.

    >>> g = torch.tensor([3.0, 4.0])
    >>> clip_where_large_([g], watched=[g], limit=1.0)
    >>> g
    tensor([0.6000, 0.8000])
    """
    if not watched:
        return
    largest = torch.stack([g.abs().amax().float() for g in watched]).amax()
    factor = (limit / (flat_norm(gradients) + 1e-6)).clamp(max=1)
    torch._foreach_mul_(list(gradients), torch.where(largest > limit, factor, 1.0))


def flat_cosine(a: Sequence[Tensor], b: Sequence[Tensor]) -> Float[Tensor, ""]:
    """The cosine of two lists of tensors, each as one long vector; 0 where one of them is zero.

    >>> flat_cosine([torch.tensor([1.0]), torch.zeros(2)], [torch.ones(1), torch.tensor([1.0, 0])])
    tensor(0.7071)
    """
    return flat_dot(a, b) / (flat_norm(a) * flat_norm(b)).clamp(min=1e-12)


def add_to_gradients_(parameters: Sequence[Tensor], terms: Sequence[Tensor]) -> None:
    """g_p <- g_p + t_p, in place, for the parameters that have a gradient.

    >>> w = torch.ones(2, requires_grad=True)
    >>> w.grad = torch.ones(2)
    >>> add_to_gradients_([w], [torch.tensor([0.0, 1.0])])
    >>> w.grad
    tensor([1., 2.])
    """
    for parameter, term in zip(parameters, terms, strict=True):
        if parameter.grad is not None:
            parameter.grad += term.view_as(parameter)


def adam_step_(
    value: Float[Tensor, "*shape"],
    gradient: Float[Tensor, "*shape"],
    moments: Float[Tensor, "*shape three"],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> None:
    """One step of Adam, in place; `moments` holds both means and the number of steps.

    Source: Kingma and Ba, ICLR 2015.

    >>> value, moments = torch.ones(()), torch.zeros(3)
    >>> adam_step_(value, torch.tensor(5.0), moments, lr=0.125)
    >>> value
    tensor(0.8750)
    """
    mean, square, steps = moments.unbind(-1)
    steps += 1
    mean.lerp_(gradient, 1 - betas[0])
    square.lerp_(gradient.square(), 1 - betas[1])
    root = (square / (1 - betas[1] ** steps)).sqrt()
    value.sub_(lr * mean / (1 - betas[0] ** steps) / (root + eps))
