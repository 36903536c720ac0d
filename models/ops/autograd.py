"""What the kernels' autograd functions have in common."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def first_order_only(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a backward pass that is no torch code refuse to be differentiated itself.

    torch's `once_differentiable` lets `create_graph=True` pass where the upstream gradient is constant, and the second
    derivative is then silently zero.
    """

    @wraps(backward)
    def refusing(ctx: Any, *upstream: Tensor | None) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the kernels are differentiable once: use backend reference with create_graph=True, "
                "or sdf_field, whose gradient is an ordinary output"
            )
        return backward(ctx, *upstream)

    return refusing
