"""Noisy Batch Normalization and its noise (Santurkar et al., 2018; https://arxiv.org/abs/1805.11604)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import is_fake, unset_fake_temporarily

from bnlib.norm.batch_norm import BatchNorm
from bnlib.norm.buffers import explained, hold, is_transformed, store
from bnlib.norm.checks import check_layer, check_real, refuse_tracing
from bnlib.norm.recomputation import first_pass, refuse_other_mode, unseen


class ActivationNoise(nn.Module):
    r"""Random shifts and scales of the activations that change in every step.

    In train mode the activation of sample i in channel j becomes $s_{ij}\,a_{ij} + m_{ij}$. In each step the layer
    draws for each channel $\mu_j \sim U(-\mathrm{shift}, \mathrm{shift})$ and $\sigma_j \sim U(1, \mathrm{scale})$.
    Then it draws for each sample $m_{ij} \sim U(\mu_j - r_m, \mu_j + r_m)$ and $s_{ij} \sim N(\sigma_j, r_s^2)$. All
    positions of a sample in a channel get the same shift and scale. In eval mode the layer returns its input; the paper
    does not say what its noise does there.

    Arguments:
        shift: bound of a channel's mean shift, at least 0.
        scale: upper bound of a channel's mean scale, at least 1.
        shift_spread: $r_m$, at least 0.
        scale_spread: $r_s$, at least 0.
        seed: seed of the noise; None draws one from PyTorch's global generator.

    Shape:
        Input (N, C, \*); the output has the same shape.

    Raises:
        ValueError: if an argument is outside its range; on a call, if the input has fewer than two dimensions.
        RuntimeError: in train mode in ``torch.jit.trace`` and ``torch.export``, whose program would repeat one noise.

    The noise depends on ``seed`` and on ``num_batches_tracked``, the number of earlier steps, which is part of the
    ``state_dict``. A forward pass that ``torch.utils.checkpoint`` repeats has the noise of the first pass. The noise is
    drawn on the CPU, so it is the same on all devices.

    Source: Santurkar et al. 2018, section 2.1 and appendix; the defaults are the paper's values.

    Example:
        >>> layer, x = bnlib.ActivationNoise(shift=2.0, seed=1), torch.zeros(1000, 1)
        >>> [round(layer(x).mean().item(), 1) for step in range(3)]  # a new shift in each step
        [1.3, -1.0, 1.0]
        >>> torch.equal(layer.eval()(x), x)
        True
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        shift: float = 0.5,
        scale: float = 1.25,
        shift_spread: float = 0.1,
        scale_spread: float = 0.1,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        given = {"shift": shift, "scale": scale, "shift_spread": shift_spread, "scale_spread": scale_spread}
        check_layer(("seed",), seed=seed, **given)
        for name, value in given.items():
            least = 1 if name == "scale" else 0
            if not value >= least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.shift, self.scale, self.shift_spread, self.scale_spread = shift, scale, shift_spread, scale_spread
        with unset_fake_temporarily():
            self.seed = int(torch.randint(2**62, (), device="cpu")) if seed is None else seed
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, input: Tensor) -> Tensor:
        """Add the noise to ``input``, shape (N, C, ...)."""
        check_real(input)
        if input.dim() < 2:
            raise ValueError(f"input must have shape (N, C) or (N, C, *spatial), got {tuple(input.shape)}")
        if not self.training:
            refuse_other_mode(self, input)
            return input
        refuse_tracing(self, or_exporting=True)
        with unseen():
            again = first_pass(self, input)
            steps = hold(self.num_batches_tracked)[0] if again is None else again.copies()["num_batches_tracked"]
            output = self.add(input, _number(self, steps))
            if again is None:
                store(self, num_batches_tracked=self.num_batches_tracked + 1)
            return output

    def add(self, input: Tensor, step: int) -> Tensor:
        """Return ``input`` with the noise of a step."""
        factor, offset = self.draw(input.shape[:2], step)
        view = *input.shape[:2], *[1] * (input.dim() - 2)
        return input * factor.view(view).to(input) + offset.view(view).to(input)

    def draw(self, shape: tuple[int, int], step: int) -> tuple[Tensor, Tensor]:
        """Return the scales s and the shifts m of a step, both of ``shape`` (N, C)."""
        # PyTorch's generator uses only 32 bits of a seed.
        generator = torch.Generator("cpu").manual_seed(
            int(np.random.SeedSequence((self.seed, step)).generate_state(1)[0])
        )

        kind = {"device": "cpu", "dtype": torch.float32}  # whatever the defaults are

        def uniform(shape, low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(shape, generator=generator, **kind)

        offset = uniform(shape[1:], -self.shift, self.shift) + uniform(shape, -self.shift_spread, self.shift_spread)
        factor = uniform(shape[1:], 1, self.scale)
        return factor + self.scale_spread * torch.randn(shape, generator=generator, **kind), offset

    def extra_repr(self) -> str:
        """Return the arguments as text for the repr of a model, without the seed."""
        spreads = f"shift_spread={self.shift_spread}, scale_spread={self.scale_spread}"
        return f"shift={self.shift}, scale={self.scale}, {spreads}"


def _number(layer: nn.Module, steps: Tensor) -> int:
    """Return the number of steps, or 0 if the tensor has no value, as on the meta device."""
    if steps.is_meta or is_fake(steps):
        return 0
    if is_transformed():
        with explained(layer, "num_batches_tracked"):
            return int(steps)
    return int(steps)


class NoisyBatchNorm(BatchNorm):
    r"""Noisy BN: ``BatchNorm`` followed by ``ActivationNoise``, so the output's distribution changes in every step.

    Arguments:
        num_features, eps, momentum, affine, device, dtype, bias: as for ``BatchNorm``.
        shift, scale, shift_spread, scale_spread, seed: as for ``ActivationNoise``.

    Shape:
        Input (N, C, \*); the output has the same shape.

    Raises:
        ValueError, RuntimeError: as ``BatchNorm`` and ``ActivationNoise``.

    The ``state_dict`` has the keys of ``BatchNorm``'s. Its ``num_batches_tracked`` counts the steps of the noise, too.

    Source: Santurkar et al. 2018, section 2.1 ("noisy" BatchNorm).

    Example:
        >>> layer, x = bnlib.NoisyBatchNorm(1, shift=2.0, seed=1), torch.arange(1000.0)[:, None]
        >>> [round(layer(x).mean().item(), 1) for step in range(3)]  # the mean of BN's output is 0
        [1.3, -1.0, 1.0]
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        shift: float = 0.5,
        scale: float = 1.25,
        shift_spread: float = 0.1,
        scale_spread: float = 0.1,
        seed: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, True, device, dtype, bias=bias)
        # Not a submodule, because its step counter is the layer's own num_batches_tracked.
        self.__dict__["noise"] = ActivationNoise(shift, scale, shift_spread, scale_spread, seed)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``input``, shape (N, C, ...), and add the noise."""
        if not self.training:
            self._check_input_dim(input)
            refuse_other_mode(self, input)
            return super().forward(input)
        refuse_tracing(self, or_exporting=True)
        self._check_input_dim(input)
        with unseen():
            return self._forward_with_noise(input)

    def _forward_with_noise(self, input: Tensor) -> Tensor:
        again = first_pass(self, input)
        if again is None:
            step = _number(self, hold(self.num_batches_tracked)[0])
            return self.noise.add(super().forward(input), step)
        # The running statistics have seen the batch already, and the noise must be that of the first pass.
        copies, own = again.copies(), self._buffers.copy()
        step = _number(self, copies["num_batches_tracked"])
        try:
            self._buffers.update(copies)
            return self.noise.add(super().forward(input), step)
        finally:
            self._buffers.update(own)

    def extra_repr(self) -> str:
        """Return the arguments as text for the repr of a model."""
        return f"{super().extra_repr()}, {self.noise.extra_repr()}"
