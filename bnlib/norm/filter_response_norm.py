"""Filter Response Normalization with its activation (Singh and Krishnan, 2020; https://arxiv.org/abs/1911.09737)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnlib.norm.checks import check_input, check_layer


class FilterResponseNorm(nn.Module):
    r"""Filter Response Normalization (FRN) with the thresholded linear unit (TLU) of its paper.

    Each channel of each sample is divided by its root mean square over the positions; no mean is subtracted:
    $z = \gamma\,x/\sqrt{\nu^2 + \epsilon} + \beta$ with $\nu^2 = \overline{x^2}$. Then the TLU takes the place of the
    ReLU: $y = \max(z, \tau)$ with a learned threshold $\tau$ per channel, which starts at 0, as a ReLU.

    With a single position, as behind a linear layer, $\nu^2$ is the square of the value itself, and
    $x/\sqrt{x^2 + \epsilon}$ is nearly the sign of x: almost no gradient passes. For this case the paper learns
    $\epsilon$; see ``learn_eps``.

    Arguments:
        num_features: number of channels, C.
        eps: added to the mean square, positive.
        learn_eps: use $\epsilon$ = ``eps`` + $|\epsilon_l|$, with one learned number $\epsilon_l$ for the layer, which
            starts at 1e-4.
        threshold: end with the TLU; without it no activation is contained.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Shape:
        Input (N, C, \*); the output has the same shape.

    Raises:
        ValueError: if ``eps`` is not positive; on a call, as ``BatchNorm``.

    Source: Singh and Krishnan 2020, section 3.

    Example:
        >>> layer, x = bnlib.FilterResponseNorm(1), torch.tensor([[[3.0, -4.0]], [[300.0, -400.0]]])
        >>> [[round(value, 2) for value in sample.flatten().tolist()] for sample in layer(x)]
        [[0.85, 0.0], [0.85, 0.0]]
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-6,
        learn_eps: bool = False,
        threshold: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_layer(
            num_features=num_features, eps=eps, learn_eps=learn_eps, threshold=threshold, device=device, dtype=dtype
        )
        super().__init__()
        if not eps > 0:
            raise ValueError(f"eps must be positive, got {eps}")
        self.num_features, self.eps = num_features, eps
        kept = {"weight": num_features, "bias": num_features}
        kept |= {"threshold": num_features if threshold else None, "learned_eps": 1 if learn_eps else None}
        for name, size in kept.items():
            value = None if size is None else nn.Parameter(torch.empty(size, device=device, dtype=dtype))
            self.register_parameter(name, value)
        self.reset_parameters()

    _check_input_dim = check_input

    def reset_parameters(self) -> None:
        """Set gamma to 1, beta and the threshold to 0, and the learned part of eps to 1e-4."""
        for value, start in ((self.weight, 1.0), (self.bias, 0.0), (self.threshold, 0.0), (self.learned_eps, 1e-4)):
            if value is not None:
                nn.init.constant_(value, start)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``input``, shape (N, C, ...); see the class."""
        self._check_input_dim(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))  # float16 would overflow above 255
        squares = x.square()
        mean_square = squares.mean(tuple(range(2, input.dim())), keepdim=True) if input.dim() > 2 else squares
        learned, threshold = self.learned_eps, self.threshold  # once: a parametrisation computes them anew each time
        view = (-1, *[1] * (input.dim() - 2))
        eps = self.eps if learned is None else self.eps + self._learned(learned.abs(), view)
        normalised = x * torch.rsqrt(mean_square + eps)
        output = normalised * self.weight.view(view) + self.bias.view(view)
        output = output if threshold is None else torch.maximum(output, threshold.view(view))
        return output.to(input.dtype)

    def _learned(self, value: Tensor, view: tuple[int, ...]) -> Tensor:
        return value  # one number; a stack of models has one for each

    def extra_repr(self) -> str:
        """Return the arguments as text for the repr of a model."""
        learned = self.learned_eps is not None
        return f"{self.num_features}, eps={self.eps}, learn_eps={learned}, threshold={self.threshold is not None}"
