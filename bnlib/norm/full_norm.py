"""Full Normalization (Lian and Liu, 2019, Algorithm 3; https://proceedings.mlr.press/v89/lian19a.html)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnlib.arguments import check_one_of, is_number, shown
from bnlib.norm.buffers import copied_if_compiled, followed, is_eager, kept_for_backward, refuse_tangents, store
from bnlib.norm.checks import check_input, check_layer, check_real, refuse_tracing
from bnlib.norm.full_norm_autograd import PureStep, TransformedStep, eager_step
from bnlib.norm.full_norm_fast_path import is_near
from bnlib.norm.full_norm_passes import Settings, needs_shift, per_channel, statistics_dtype
from bnlib.norm.layouts import in_readable_layout
from bnlib.norm.recomputation import first_pass, refuse_other_mode, unseen
from bnlib.norm.scheduled import ALPHA, at_step
from bnlib.reference import ORACLES
from bnlib.schedules import PowerSchedule, Schedule, check_schedule

DEFAULT_ALPHA = PowerSchedule(scale=1, power=1, floor=0.03, start=1)
"""The default weight of the newest batch in ``FullNorm``: 1/2, 1/3, 1/4, ... and never less than 0.03.

At first the estimates are the average of the initial estimates and of all batches. Later they are a moving average over
about 1/0.03 = 33 batches. The first weight is 1/2 and not 1 because a first batch of one sample has variance 0: the
layer would divide by the square root of eps, and the first gradients would grow by a factor of hundreds per layer.

The floor 0.03 was chosen among the floors 0.003 to 0.3 in ``bnlib.experiments.full_normalization.oracles_on_digits``.
The floors 0.01 and 0.03 give low test errors at all batch sizes. With larger floors, and with the paper's schedules,
the estimates are too noisy at batch size 1 and for batches with one label. If the statistics change fast, the estimates
lag behind: in ``bnlib.experiments.objective.lian_figure_2``, with a learning rate of 0.1 and ten epochs, convolutional
networks with this default have more errors than those with BN at the batch sizes 64 and 128 (220 and 110 steps), and
at batch size 16 one of three seeds fails. The class says how to avoid such failures.
"""

_ESTIMATES = ("running_mean", "running_mean_rest", "running_var", "running_grad_weight", "running_grad_bias")


class FullNorm(nn.Module):
    r"""Full Normalization of an ``(N, C)`` or ``(N, C, *spatial)`` input of any batch size, including 1.

    Both train and eval mode normalise with running estimates of the mean and the variance over the data set,
    $y = \gamma\,(x - \mu)/\sqrt{\max\{v, \epsilon\}} + \beta$. In train mode the estimates first move towards the
    statistics of the batch with weight $\alpha$, as in Algorithm 3, where $v$ is called $\nu - \mu^2$. So the function
    that is trained is the function that is used at inference, for any batches.

    The estimates depend on the weights of earlier layers. That part of the gradient needs two averages over the *data
    set*, of $\partial\gamma$ and $\partial\beta$ (equation (7) of the paper). With $N$ values per channel in the batch
    and the gradient $g$ at the output, $\partial x = \frac{\gamma}{\sigma}\,(g - \frac1N S_\beta - \hat x\,\frac1N
    S_\gamma)$. The argument ``oracle`` says how $S_\gamma$ and $S_\beta$ are estimated:

    - ``"running"``, the default: from running estimates of $\sum g \hat x$ and $\sum g$ over *earlier* batches. These
      do not depend on the current batch, as Remark 1 of the paper requires of the second sample. With exact $\mu$ and
      $v$ the gradient is therefore unbiased at any depth and batch size, except that the estimates are a few steps
      old. Every backward pass in train mode updates the estimates, so compute a backward pass that is not a training
      step, such as a gradient penalty, in eval mode. The loss must be a mean over the batch, or at least keep its
      scale: after a sudden change of its scale or of the learning rate the estimates need about $1/\alpha$ steps.
      A backward pass uses the estimates of its forward pass, so its gradient does not depend on the order of the
      backward passes. If several losses have a backward pass each through one forward pass, each of them subtracts the
      estimate, and the estimate becomes an average over the losses. It is simpler to add up the losses first. A siamese
      network and the discriminator of a GAN, which call the layer on two batches per step, get the estimates of a data
      set that contains both kinds of batches: their mean, their variance, and the average of their two gradients. In
      the generator's step, whose loss is another one, put the discriminator into eval mode.
    - ``"batch"``: from $\sum g \hat x$ and $\sum g$ of the current batch. The same samples estimate both expectations
      of (7), so the gradient has a bias proportional to 1/(number of samples). With one value per channel it is
      $\partial x = -\gamma\hat x^2 g/\sigma$, which opposes the gradient $g$ that arrives. Suitable for large mixed
      batches only.
    - ``"literal"``: as ``"batch"``, but divided by the number of channels as well. Algorithm 3 is printed with
      $1/(bd)$, where d is the length of a sample. In a wide layer it is close to ``"constant"``.
    - ``"constant"``: as 0, as if the estimates did not depend on the weights. Then nothing keeps the weights of
      earlier layers from growing, as Ioffe and Szegedy warn in their section 2.
    - ``"leave_one_out"``: for each sample, from the other samples of the batch. With exact $\mu$ and $v$ the gradient
      is unbiased if this is the only such layer and the samples are drawn independently. In a stack of such layers its
      bias is larger than that of ``"batch"``. It needs at least two samples.

    A large learning rate that works with BN can fail: BN's statistics move with the weights within a step, and these
    estimates follow later. Measured on digits with SGD in batches of 64 and floors of alpha from 0.03 to 0.3
    (``bnlib.experiments.convergence.stability_map``): the largest rate at which networks with one, two and three of
    these layers have test errors within 3 percentage points of BN's is 1, 0.3 and 0.1; at smaller rates some settings
    learn too slowly for that. The largest rate at which BN trains is 3. With momentum 0.9 the largest rate is 0.3, and
    1 with one layer and the floors 0.1 and 0.3. Most networks of this experiment train at rates above 0.68 alpha, the
    border of the toy problem of chapter 5. Before evaluation let the estimates catch up: let the learning rate fall to
    0, or make about $3/\alpha$ forward passes in train mode after the last training step. In a convolutional network at
    rate 0.1 (``causes_of_failures``) either one gives errors below 2 %, and without it they are 1 to 24 %. This does
    not help if the weights themselves are bad, as in a fully connected network at rate 1; there the floor 0.1 has a
    third of the errors of the floor 0.03, and a smaller rate is the remedy.

    The experiment ``bnlib.experiments.full_normalization.oracle_bias`` computes these biases exactly, over all batches
    of a small data set. In training there is a further bias, because $\mu$ and $v$ contain the current batch with
    weight $\alpha$; it matters for small batches. In ``bnlib.experiments.full_normalization.oracles_on_digits``
    only the default oracle trains in all settings: ``"batch"`` fails at batch size 1, and on batches of one label both
    ``"batch"`` and ``"leave_one_out"`` fail. Estimators of $\mu$ and $v$ that subtract the value of the same batch at
    the previous weights (SCSC, STORM) are not available: they need a second forward pass, and their $\nu - \mu^2$ can
    become negative.

    Arguments:
        num_features: number of channels, C.
        eps: lower bound of the variance, positive.
        alpha: weight of the newest batch, in (0, 1], or a schedule (``bnlib.schedules``) of the number of earlier
            batches. The schedule is called with a number or with a 0-dimensional tensor. Its first value is checked
            now, and each value in its step, also in compiled code; devices other than CPUs and CUDA GPUs check none.
        oracle: how the gradient is estimated, one of the names above.
        affine: learn a scale ``weight`` (gamma).
        process_group: a group of ``torch.distributed`` whose processes share one set of estimates, as if their batches,
            of any sizes, were one global batch; None keeps separate estimates in each process. Under
            ``DistributedDataParallel``, where each process averages its own loss, the two running gradients are larger
            by a factor of the number of processes; the gradients of the parameters and of the input are correct.
        device: device of the parameters and buffers.
        dtype: dtype of the parameters. The estimates are always float32 or longer, because with a small alpha a shorter
            type would round the updates to 0. If a mean is far from 0, ``running_mean_rest`` holds its rounding error.
        bias: learn a shift ``bias`` (beta); it needs ``affine=True``.

    Shape:
        Input (N, C, \*); the output has the same shape.

    Raises:
        ValueError: if an argument is outside its range; on a call, if the input has fewer than two dimensions or
            another number of channels, or a single sample with ``"leave_one_out"``.
        TypeError: if an argument or the input is of another type.
        RuntimeError: in train mode, if the output is differentiated twice or in forward mode, because no oracle is the
            gradient of a function; and for per-sample gradients with ``torch.func.vmap`` and ``torch.jit.trace``.

    If a batch contains values that are not finite, the estimates of the affected channels do not change.
    ``num_batches_tracked`` counts the steps. It and the estimates are part of the ``state_dict``, so a resumed run
    gives exactly the same numbers. A ``state_dict`` of torch.nn.BatchNorm can be loaded, too; the running gradients
    then start from 0. For the other direction, ``bnlib.convert(copy.deepcopy(model), to=nn.BatchNorm2d).state_dict()``
    loads into a model with PyTorch's layers. ``torch.optim.swa_utils.update_bn`` ignores this layer; it is only
    needed after weight averaging.

    ``torch.utils.checkpoint`` runs the forward pass twice. The layer recognises the second time: the output is the
    same, and the estimates move once. A selective checkpoint computes the layer again, whatever else it saves. A
    compiled layer or a stack of models there raises an error, and so does a checkpoint that is not a function of
    autograd and comes after more than 64 passes without gradients. Several backward passes through one forward pass
    leave the average of what each would have made of the running gradients, also in compiled code and under
    ``torch.func``. Vectorised backward passes (``is_grads_batched``, ``jacobian`` with ``vectorize=True``,
    ``torch.func.jacrev``) move no estimates. If the type or the device of the layer changes between the forward and the
    backward pass, the new estimates are updated; in eval mode a change of the type there leads to PyTorch's error about
    mixed types.

    Limits: ``torch.jit.trace`` is supported in eval mode only, and ``torch.jit.script`` is not. On the CPU, for more
    than 1e4 float32 values per channel of a tensor that is neither contiguous nor channels-last, sums are as inexact as
    in PyTorch's own batch norm: 1e-4 at a mean of 20 standard deviations. The forward pass is exact for means far from
    0; the backward pass rounds them to float32, as PyTorch does. At a mean of 1e4 standard deviations it takes an
    $\hat x$ that is off by up to 5e-4 in the gradients of the input and of ``weight`` and in ``running_grad_weight``.

    Source: Lian and Liu 2019, Algorithm 3 and equation (7).

    Example:
        In a stream of batches with one label each, BN gives every batch the mean 0. FN uses the statistics of the whole
        stream, so the two labels keep different means:

        >>> labels = [torch.full((4, 1), 3.0), torch.full((4, 1), 5.0)]
        >>> full, batch = bnlib.FullNorm(1, alpha=0.03), bnlib.BatchNorm(1)
        >>> for _ in range(200):
        ...     outputs = [(full(x), batch(x)) for x in labels]
        >>> [round(by_full.mean().item()) for by_full, _ in outputs]
        [-1, 1]
        >>> [round(by_batch.mean().item()) for _, by_batch in outputs]
        [0, 0]

        The layer can train on a single sample, and train mode computes the same function as eval mode:

        >>> x = torch.tensor([[4.5]], requires_grad=True)
        >>> y = full(x)
        >>> y.sum().backward()
        >>> bool(x.grad > 0), torch.allclose(y, full.eval()(x))
        (True, True)
    """

    @torch.inference_mode(False)
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
        check_layer(num_features=num_features, eps=eps, affine=affine, bias=bias, device=device, dtype=dtype)
        check_layer(process_group=process_group)
        if not callable(alpha) and not is_number(alpha):
            raise TypeError(f"alpha must be a number in (0, 1] or a schedule (bnlib.schedules), got {shown(alpha)}")
        check_one_of("oracle", oracle, ORACLES)
        long_dtype = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
        if not eps >= torch.finfo(long_dtype).tiny:
            raise ValueError(f"eps must be positive, and not below what {long_dtype} can hold, got {eps}")
        first = check_schedule("alpha", alpha) if callable(alpha) else alpha
        if not 0 < first <= 1:
            raise ValueError(f"alpha must lie in (0, 1], got {first}" + " at step 0" * callable(alpha))
        self.num_features, self.eps, self.alpha, self.oracle = num_features, eps, alpha, oracle
        self.affine, self.process_group = affine, process_group
        for name, learned in (("weight", affine), ("bias", affine and bias)):
            values = nn.Parameter(torch.empty(num_features, device=device, dtype=dtype)) if learned else None
            self.register_parameter(name, values)
        for name in _ESTIMATES:
            self.register_buffer(name, torch.empty(num_features, device=device, dtype=long_dtype))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long, device=device))
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Reset the estimates to mean 0, variance 1 and gradients 0, and ``num_batches_tracked`` to 0."""
        for name in _ESTIMATES:
            getattr(self, name).fill_(name == "running_var")
        self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Set gamma to 1 and beta to 0, and reset the estimates with ``reset_running_stats``."""
        self.reset_running_stats()
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @property
    def settings(self) -> Settings:
        """The settings of the layer that a step needs in addition to its tensors."""
        return Settings(self.eps, self.oracle, self.num_features, self.process_group)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``input``, shape (N, C, ...); see the class."""
        eager = is_eager(input)  # then it is a tensor; the general step and eval mode check what it holds
        dense = eager and input.layout is torch.strided and not input.is_nested
        usual = dense and input.dim() > 1 and input.size(1) == self.num_features
        if not usual or (self.oracle == "leave_one_out" and input.size(0) == 1):
            self._check_input(input)
        if not self.training:
            return self._evaluate(input, eager)
        if eager:
            own = self._parameters  # much faster than getattr; parametrised and pruned parameters are not there
            weight = own["weight"] if "weight" in own else self.weight
            bias = own["bias"] if "bias" in own else self.bias
            with unseen():
                return eager_step(input, weight, bias, (self, first_pass(self, input)))
        first_pass(self, input)  # which cannot recognise a batch here, and raises an error if it would have to
        alpha = self.alpha
        if callable(alpha):
            alpha = at_step("alpha", alpha, self.num_batches_tracked.double(), ALPHA)
        estimates = [getattr(self, name) for name in _ESTIMATES]
        refuse_tracing(self)
        compiled = torch.compiler.is_compiling()
        step = PureStep if compiled else TransformedStep
        output, *new = step.apply(input, self.weight, self.bias, *estimates, alpha, compiled, self.settings)
        store(self, **dict(zip(_ESTIMATES[:3], new, strict=False)), num_batches_tracked=self.num_batches_tracked + 1)
        return output

    def extra_repr(self) -> str:
        """Return the arguments as text for the repr of a model."""
        text = f"{self.num_features}, eps={self.eps}, alpha={self.alpha}, oracle={self.oracle!r}, affine={self.affine}"
        return text + ", bias=False" * (self.affine and self.bias is None)

    def _parameter(self, name: str) -> Tensor | None:
        # Much faster than getattr; parametrised and pruned parameters are not there.
        return self._parameters[name] if name in self._parameters else getattr(self, name)

    def _evaluate(self, input: Tensor, eager: bool) -> Tensor:
        check_real(input)
        refuse_other_mode(self, input)
        kind, mean, variance = statistics_dtype(input), self._buffers["running_mean"], self._buffers["running_var"]
        weight, bias = self._parameter("weight"), self._parameter("bias")
        alike = all(each is None or each.dtype is kind for each in (mean, weight, bias))
        if eager and alike and is_near(input, mean, variance, self.eps):
            return self._normalise(input, weight, bias, *kept_for_backward(mean, variance))
        weight, bias = (None if each is None else each.to(kind) for each in (weight, bias))
        variance = variance.clamp(min=self.eps)
        # An exporter can fold the layer into a convolution if it is one batch norm with constant statistics.
        if needs_shift(input) and not (torch.compiler.is_exporting() or torch.jit.is_tracing()):
            refuse_tangents(mean, self.running_mean_rest, variance)
            # Compiled code computes both again in the backward pass, so it must not do so from the buffers.
            mean, variance = copied_if_compiled(mean.double() + self.running_mean_rest.double(), variance.double())
            shift = mean.to(kind)
            kept = (mean - shift).to(kind), variance.to(kind)
            return self._normalise(input - per_channel(shift, input), weight, bias, *kept)
        return self._normalise(input, weight, bias, *kept_for_backward(mean.to(kind), variance.to(kind)))

    @staticmethod
    def _normalise(input: Tensor, *kept: Tensor | None) -> Tensor:
        if input.dim() < 4:
            return torch.batch_norm(input, *kept, False, 0.0, 0.0, False)
        return in_readable_layout(lambda x: torch.batch_norm(x, *kept, False, 0.0, 0.0, False), input)

    def _check_input(self, input: Tensor) -> None:
        check_input(self, input)
        alone = self.oracle == "leave_one_out" and input.size(0) == 1 and self.process_group is None
        if alone and self.training:
            raise ValueError(
                "input must hold at least two samples for oracle='leave_one_out', got 1; use oracle='running'"
            )

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
        own = [prefix + name for name in ("running_mean_rest", "running_grad_weight", "running_grad_bias")]
        mean = state_dict.get(prefix + "running_mean")
        mean = mean if isinstance(mean, Tensor) else None  # PyTorch says what is wrong with another value
        # Another batch norm layer has none of FullNorm's own estimates, but both running statistics.
        if mean is not None and prefix + "running_var" in state_dict and not any(key in state_dict for key in own):
            state_dict |= {key: torch.zeros_like(mean) for key in own}
            steps = self.num_batches_tracked
            if (local_metadata.get("version") or 1) < 2:  # PyTorch's rule for checkpoints from before 0.4.1
                steps = torch.zeros_like(steps, device=mean.device) if steps.is_meta else steps
                state_dict.setdefault(prefix + "num_batches_tracked", steps)
        rest = state_dict.get(own[0])
        if mean is not None and isinstance(rest, Tensor) and _is_shorter(self.running_mean, mean):
            state_dict[prefix + "running_mean"], state_dict[own[0]] = _rounded(mean, rest, self.running_mean.dtype)
        # Loading a half-precision state_dict with assign=True would make the estimates half precision, too.
        for name in _ESTIMATES:
            value = state_dict.get(prefix + name)
            if isinstance(value, Tensor):
                state_dict[prefix + name] = value.to(getattr(self, name).dtype)
        loaded = mean is not None and mean.shape == self.running_mean.shape
        if loaded and own[0] not in state_dict and not self.running_mean_rest.is_meta:
            self.running_mean_rest.zero_()  # it was the rounding error of the old mean
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def _apply(self, fn, recurse=True):
        with followed(self, *_ESTIMATES):
            before = {name: getattr(self, name) for name in _ESTIMATES}
            super()._apply(fn, recurse)
            new, old, rest = self.running_mean, before["running_mean"], before["running_mean_rest"]
            if _is_shorter(new, old) and not new.is_meta:
                self.running_mean_rest.copy_(_rounded(old, rest, new.dtype)[1])
            for name, old in before.items():
                if getattr(self, name).dtype.itemsize < 4:
                    setattr(self, name, old.to(getattr(self, name).device))
        return self


def _is_shorter(new: Tensor, old: Tensor) -> bool:
    return new.dtype.itemsize < old.dtype.itemsize


def _rounded(mean: Tensor, rest: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return a running mean in another type, and its rounding error."""
    exact = mean.double() + rest.double()
    return exact.to(dtype), (exact - exact.to(dtype).double()).to(dtype)
