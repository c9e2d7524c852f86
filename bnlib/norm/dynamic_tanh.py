"""Dynamic tanh, DyT (Zhu et al., 2025; https://arxiv.org/abs/2503.10622)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnlib.arguments import check_number
from bnlib.norm.checks import check_input, check_layer


class DynamicTanh(nn.Module):
    r"""Dynamic tanh (DyT), $y = \gamma \tanh(\alpha x) + \beta$, which takes the place of a norm without statistics.

    $\alpha$ is one learned number for the whole layer, $\gamma$ and $\beta$ have one number per channel. Each value is
    squashed by itself: outputs are bounded as behind a norm, but nothing adapts to the scale of the input, except
    $\alpha$ as it is trained. If $\alpha x$ is large from the start, tanh is flat and passes almost no gradient.

    Arguments:
        num_features: number of channels, C.
        alpha: initial value of $\alpha$, positive; the paper's is 0.5, and other values in large language models.
        affine: learn a scale ``weight`` (gamma) and a shift ``bias`` (beta).
        device: device of the parameters.
        dtype: dtype of the parameters.

    Shape:
        Input (N, C, \*); the output has the same shape.

    Raises:
        ValueError: if ``alpha`` is not positive; on a call, as ``BatchNorm``.

    Source: Zhu et al. 2025, Algorithm 1.

    Example:
        >>> layer = bnlib.DynamicTanh(2)
        >>> [round(value, 2) for value in layer(torch.tensor([[1.0, 100.0]])).flatten().tolist()]
        [0.46, 1.0]
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        num_features: int,
        alpha: float = 0.5,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_layer(num_features=num_features, affine=affine, device=device, dtype=dtype)
        super().__init__()
        check_number("alpha", alpha)
        if not alpha > 0:
            raise ValueError(f"alpha must be positive, got {alpha}")
        self.num_features, self.initial_alpha = num_features, alpha
        self.alpha = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        for name in ("weight", "bias"):
            value = nn.Parameter(torch.empty(num_features, device=device, dtype=dtype)) if affine else None
            self.register_parameter(name, value)
        self.reset_parameters()

    _check_input_dim = check_input

    def reset_parameters(self) -> None:
        """Set alpha to its initial value, gamma to 1 and beta to 0."""
        nn.init.constant_(self.alpha, self.initial_alpha)
        if self.weight is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Squash ``input``, shape (N, C, ...); see the class."""
        self._check_input_dim(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))  # as in the other norms of one sample
        squashed, weight = torch.tanh(self.alpha * x), self.weight
        if weight is not None:
            view = (-1, *[1] * (input.dim() - 2))
            squashed = squashed * weight.view(view) + self.bias.view(view)
        return squashed.to(input.dtype)

    def extra_repr(self) -> str:
        """Return the arguments as text for the repr of a model."""
        return f"{self.num_features}, alpha={self.initial_alpha}, affine={self.weight is not None}"
