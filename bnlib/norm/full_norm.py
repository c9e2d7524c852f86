"""Full Normalization (Lian and Liu, 2019, Algorithm 3; https://proceedings.mlr.press/v89/lian19a.html)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnlib.norm.buffers import store
from bnlib.norm.full_norm_passes import PureStep, Settings, Step, is_eager, per_channel, shifts, statistics_dtype
from bnlib.reference import ORACLES
from bnlib.schedules import PowerSchedule, Schedule, check_schedule

DEFAULT_ALPHA = PowerSchedule(scale=1, power=1, floor=0.03, start=1)
"""The mean of all batches and the initial estimates at first, then a moving average over about 1/0.03 of them.

The initial variance of 1 stays for one batch because the variance of a first batch of one sample is 0: divided by the
root of eps, the first gradients would grow by a factor of hundreds with each layer.
Of the floors 0.003 to 0.3 tried in ``bnlib.experiments.full_normalization.oracles_on_digits``, 0.01 and 0.03 do well at
all batch sizes; with larger ones the estimates are too noisy at batch size 1 and on batches of one label, as they are
with the paper's. Where the statistics move fast the estimates lag: in ``bnlib.experiments.objective.lian_figure_2``,
with a learning rate of 0.1 and ten epochs, convolutions with this default are behind those with BN at batch sizes 64
and 128 (220 and 110 steps), and at 16 one seed of three fails.
"""

_ESTIMATES = ("running_mean", "running_mean_rest", "running_var", "running_grad_weight", "running_grad_bias")


class FullNorm(nn.Module):
    r"""Full Normalization of any ``(N, C)`` or ``(N, C, *spatial)`` input, batch size 1 included.

    Train mode does what eval mode does: it normalises with running estimates of the mean and the variance over the
    data set, $y = \gamma\,(x - \mu)/\sqrt{\max\{v, \epsilon\}} + \beta$. In train mode the estimates first move towards
    those of the batch by the weight $\alpha$, as in Algorithm 3 ($v$ is its $\nu - \mu^2$). So the network that is
    trained is the network that is used, whatever the batches.

    The estimates depend on the weights below, and that part of the gradient needs two averages over the *data set*,
    of $\partial\gamma$ and $\partial\beta$ (equation (7) of the paper, with $N$ values a channel in the batch):
    $\partial x = \frac{\gamma}{\sigma}\,(g - \frac1N S_\beta - \hat x\,\frac1N S_\gamma)$, $g$ being the gradient at
    the output. ``oracle`` says what stands for $S_\gamma, S_\beta$:

    - ``"running"``, the default: running estimates of $\sum g \hat x$ and $\sum g$, from the batches *before*. They do
      not depend on this batch, as the paper's Remark 1 asks of the second sample, so that with exact $\mu$ and $v$ the
      gradient has no bias but what comes from their age, at any depth and batch size. Each backward pass moves them:
      one that is not part of the training, such as a penalty on gradients or a second loss, belongs in eval mode. The
      loss must be a mean over the batch, or at least stay on one scale; after a jump of the scale or of the learning
      rate the estimates need $1/\alpha$ steps.
    - ``"batch"``: $\sum g \hat x$ and $\sum g$ of this batch. The same samples stand for both expectations of (7),
      which gives a bias proportional to 1/(number of samples); with one value a channel
      $\partial x = -\gamma\hat x^2 g/\sigma$, of the wrong sign. For large batches of all kinds of samples only.
    - ``"literal"``: as ``"batch"``, divided once more by the number of channels. Algorithm 3 is printed with
      $1/(bd)$, d being the length of a sample. Close to ``"constant"`` in a wide layer.
    - ``"constant"``: 0, as if the estimates did not depend on the weights. Nothing then keeps the weights below from
      growing, against which Ioffe and Szegedy warn in their section 2.
    - ``"leave_one_out"``: for each sample, the sums over the other samples of the batch, with their N. With exact $\mu$
      and $v$ no bias if this is the only such layer and samples are drawn independently, but in a stack, where samples
      meet again, one larger than that of ``"batch"``. Needs two samples.

    These biases are exact, over all batches of a small data set, in
    ``bnlib.experiments.full_normalization.oracle_bias``. In use another comes on top: $\mu$ and $v$ contain this batch
    with weight $\alpha$, which matters if it is small. The default is the oracle that holds everywhere in
    ``bnlib.experiments.full_normalization.oracles_on_digits``: at batch size 1, where ``"batch"`` fails, and on batches
    of one label, where ``"leave_one_out"`` fails as well. Estimators of $\mu$ and $v$ that subtract the value of the
    same batch at the weights before (SCSC, STORM) are not offered: they need a second forward pass, and nothing keeps
    their $\nu - \mu^2$ from falling below 0.

    Arguments:
        num_features: number of channels, C.
        eps: least variance, positive.
        alpha: weight of the newest batch in (0, 1], or a schedule (``bnlib.schedules``) of the number of batches
            before, which is given to it as a number or as a tensor.
        oracle: one of the above.
        affine: learn ``weight`` (gamma).
        process_group: of ``torch.distributed``; its processes share one set of estimates, as if their batches, of any
            sizes, were one. None for estimates of this process alone. With ``DistributedDataParallel``, in which each
            process has a mean loss of its own, the two estimates of gradients are as many times larger as there are
            processes; the gradients are right.
        device: of parameters and buffers.
        dtype: of the parameters. The estimates stay in float32 at least, whatever the layer is converted to: with small
            alpha a shorter type would round every step away. What float32 rounds away from a mean that is far from 0
            is in ``running_mean_rest``.
        bias: learn ``bias`` (beta), if ``affine``.

    Shape:
        (N, C, \*) to the same.

    Raises:
        ValueError: an argument outside its range, fewer than two dimensions, another number of channels, or
            ``"leave_one_out"`` with a single sample.
        RuntimeError: when differentiated twice in train mode; none of the oracles is the gradient of a function.

    A batch with a value that is not finite leaves the estimates of its channel as they are. ``num_batches_tracked``
    counts the steps; it and the estimates are in the ``state_dict``, so a resumed run goes on bit for bit. A
    ``state_dict`` of torch.nn.BatchNorm loads as well, the two gradients being estimated from 0.
    ``torch.optim.swa_utils.update_bn`` does not know this layer, and is not needed but for averaged weights.

    Limits: under ``torch.utils.checkpoint`` the recomputed pass moves the estimates once more and its output differs,
    so do not use it around this layer. Who writes to the estimates must do it in a way that torch counts, not through
    ``.data`` or a NumPy array that shares the memory: on the CPU the layer looks only now and then whether they call
    for care. ``torch.jit`` is not supported. On the CPU sums over more than 1e5 float32 values a channel in
    channels-last are as inexact as those of torch's own batch norm: 1e-4 at a mean of 20 sigma.

    Source: Lian and Liu 2019, Algorithm 3 and equation (7).

    Example:
        A stream of batches of one label each: to BN all of them look alike, FN goes by the whole stream.

        >>> labels = [torch.full((4, 1), 3.0), torch.full((4, 1), 5.0)]
        >>> full, batch = bnlib.FullNorm(1, alpha=0.03), bnlib.BatchNorm(1)
        >>> for _ in range(200):
        ...     outputs = [(full(x), batch(x)) for x in labels]
        >>> [round(by_full.mean().item()) for by_full, _ in outputs]
        [-1, 1]
        >>> [round(by_batch.mean().item()) for _, by_batch in outputs]
        [0, 0]

        One sample is enough, and the function in train mode is that of eval mode:

        >>> x = torch.tensor([[4.5]], requires_grad=True)
        >>> y = full(x)
        >>> y.sum().backward()
        >>> bool(x.grad > 0), torch.allclose(y, full.eval()(x))
        (True, True)
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        alpha: float | Schedule = DEFAULT_ALPHA,
        oracle: str = "running",
        affine: bool = True,
        process_group: torch.distributed.ProcessGroup | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        short = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
        if not eps >= torch.finfo(short).tiny:
            raise ValueError(f"eps must be positive, and not below what {short} can hold, got {eps}")
        first = check_schedule("alpha", alpha) if callable(alpha) else alpha
        if not 0 < first <= 1:
            raise ValueError(f"alpha must lie in (0, 1], got {first}" + " at step 0" * callable(alpha))
        if oracle not in ORACLES:
            raise ValueError(f"oracle must be one of {', '.join(map(repr, ORACLES))}, got {oracle!r}")
        self.num_features, self.eps, self.alpha, self.oracle = num_features, eps, alpha, oracle
        self.affine, self.process_group = affine, process_group
        self._checked_estimates = None
        for name, learned in (("weight", affine), ("bias", affine and bias)):
            values = nn.Parameter(torch.empty(num_features, device=device, dtype=dtype)) if learned else None
            self.register_parameter(name, values)
        for name in _ESTIMATES:
            self.register_buffer(name, torch.empty(num_features, device=device, dtype=short))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long, device=device))
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Set the estimates to mean 0, variance 1 and gradients 0, and the step to 0."""
        for name in _ESTIMATES:
            getattr(self, name).fill_(name == "running_var")
        self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Set gamma to 1 and beta to 0, and the estimates as ``reset_running_stats`` does."""
        self.reset_running_stats()
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @property
    def settings(self) -> Settings:
        """What a step needs to know of the layer besides its tensors."""
        return Settings(self.eps, self.oracle, self.num_features, self.process_group)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise; see the class."""
        self._check_input(input)
        if not self.training:
            return self._evaluate(input)
        if is_eager():
            return Step.apply(input, self.weight, self.bias, self)
        alpha = self.alpha(self.num_batches_tracked.double()) if callable(self.alpha) else self.alpha
        estimates = [getattr(self, name) for name in _ESTIMATES]
        output, *new = PureStep.apply(input, self.weight, self.bias, *estimates, alpha, self.settings)
        store(self, **dict(zip(_ESTIMATES[:3], new, strict=False)), num_batches_tracked=self.num_batches_tracked + 1)
        return output

    def extra_repr(self) -> str:
        """Arguments, for the repr of a model."""
        text = f"{self.num_features}, eps={self.eps}, alpha={self.alpha}, oracle={self.oracle!r}, affine={self.affine}"
        return text + ", bias=False" * (self.affine and self.bias is None)

    def _evaluate(self, input: Tensor) -> Tensor:
        kind = statistics_dtype(input)
        mean, variance = self.running_mean.to(kind), self.running_var.clamp(min=self.eps).to(kind)
        weight, bias = (None if each is None else each.to(kind) for each in (self.weight, self.bias))
        if shifts(input):
            input, mean = input - per_channel(mean, input), self.running_mean_rest.to(kind)
        return torch.batch_norm(input, weight, bias, mean, variance, False, 0.0, 0.0, False)

    def _check_input(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"input must have shape (N, C) or (N, C, *spatial), got {tuple(input.shape)}")
        if input.size(1) != self.num_features:
            raise ValueError(
                f"input must have num_features={self.num_features} channels in dimension 1, got {input.size(1)} in "
                f"shape {tuple(input.shape)}"
            )
        alone = self.oracle == "leave_one_out" and input.size(0) == 1 and self.process_group is None
        if alone and self.training:
            raise ValueError("input must hold at least two samples for oracle='leave_one_out', got 1")

    def _load_from_state_dict(self, state_dict, prefix, *args):
        # A checkpoint of another batch norm has none.
        for name in ("running_mean_rest", "running_grad_weight", "running_grad_bias"):
            state_dict.setdefault(prefix + name, torch.zeros_like(getattr(self, name)))
        # One of a network in half precision, loaded with assign=True, would make the estimates as short.
        for name in _ESTIMATES:
            if prefix + name in state_dict:
                state_dict[prefix + name] = state_dict[prefix + name].to(getattr(self, name).dtype)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _apply(self, fn, recurse=True):
        before = {name: getattr(self, name) for name in _ESTIMATES}
        super()._apply(fn, recurse)
        for name, old in before.items():
            new = getattr(self, name)
            if new.dtype.itemsize < 4:
                setattr(self, name, old.to(new.device))
        return self

    def __getstate__(self):
        return self.__dict__ | {"_checked_estimates": None}
