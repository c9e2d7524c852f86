"""Recognise the second forward pass over a batch that ``torch.utils.checkpoint`` makes during the backward pass.

Activation checkpointing saves memory: it forgets the activations after the forward pass and computes them again when
the backward pass needs them. A layer that changes in its forward pass must then give the output of the first pass
again, and must not change once more.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointFunction

# The running backward pass, in which a forward pass is a repetition, and the hooks that keep no activations. PyTorch
# has no public functions for them.
_backward_pass, _hooks = torch._C._current_graph_task_id, torch._C._autograd._top_saved_tensors_default_hooks
# Enough for the micro-batches of a pipeline. A pass without gradients is remembered as well, because PyTorch's older
# kind of checkpointing makes its first pass without gradients.
_MOST_PASSES = 64
_BLOCKS = {CheckpointFunction.forward.__code__, CheckpointFunction.backward.__code__}
_recognised = True
_PASSES: WeakKeyDictionary[nn.Module, deque[FirstPass]] = WeakKeyDictionary()


class FirstPass:
    """What a layer was before a forward pass that may be computed again.

    Attributes:
        buffers: the buffers of the layer by name; they change as the layer is trained.
        fingerprint: the sum over each channel of the input, by which the batch is recognised.
        blocks: weak references to the checkpointed blocks that the pass belongs to.
        uses: how often the pass has been computed again.
    """

    def __init__(self, layer: nn.Module, x: Tensor) -> None:
        self.buffers = dict(layer._buffers)
        self.fingerprint = _fingerprint(x)
        self.uses, self.blocks = 0, _blocks()
        self._values = {name: None if value is None else value.clone() for name, value in self.buffers.items()}

    def copies(self) -> dict[str, Tensor | None]:
        """Return copies of the buffers with the values that they had before the pass."""
        return {name: None if value is None else value.clone() for name, value in self._values.items()}

    def is_restored(self, layer: nn.Module) -> bool:
        """Return whether the buffers have the values again that they had before the pass."""
        return _equal(self._values, layer._buffers)

    def differs_from(self, other: FirstPass) -> bool:
        """Return whether the buffers had other values before this pass than before another one."""
        return not _equal(self._values, other._values)


def _equal(values: dict[str, Tensor | None], others: dict[str, Tensor | None]) -> bool:
    pairs = [(value, others[name]) for name, value in values.items()]
    return all(
        value is other or (other is not None and value.device == other.device and torch.equal(value, other))
        for value, other in pairs
    )


def first_pass(layer: nn.Module, x: Tensor) -> FirstPass | None:
    """Return the first pass over ``x`` if this is the second one; else remember the pass if it may be repeated.

    Call it at the beginning of a forward pass in train mode, outside of ``torch.compile`` and ``torch.func``.
    """
    if _backward_pass() != -1:
        return _recall(layer, x) if _recognised else None
    if not torch.is_grad_enabled() or _hooks(True) is not None:
        _PASSES.setdefault(layer, deque(maxlen=_MOST_PASSES)).append(FirstPass(layer, x.detach()))
    return None


def _recall(layer: nn.Module, x: Tensor) -> FirstPass | None:
    fingerprint = _fingerprint(x.detach())
    same = [
        each
        for each in _PASSES.get(layer, ())
        if each.fingerprint.shape == fingerprint.shape
        and torch.allclose(each.fingerprint, fingerprint, rtol=1e-5, atol=0, equal_nan=True)
    ]
    if not same:
        return None
    same = [each for each in same if torch.equal(each.fingerprint, fingerprint)] or same
    blocks = _blocks()
    # A block computes its passes in their order.
    of_block = [each for each in same if any(block in each.blocks for block in blocks)]
    found = min(of_block or reversed(same), key=lambda each: each.uses)
    if not of_block and any(each.uses == found.uses and each.differs_from(found) for each in same):
        raise RuntimeError(
            f"{type(layer).__name__} has seen equal batches several times, and PyTorch does not tell which of them is "
            "computed again in this backward pass; use torch.utils.checkpoint, or leave this layer out of the block"
        )
    found.uses += 1
    found.blocks += blocks
    # Some programs restore the buffers before the second pass and count on it to change them once more.
    return None if found.is_restored(layer) else found


def _blocks() -> list[ref]:
    """Return weak references to the checkpointed blocks that run; an empty list if PyTorch does not tell.

    The older kind of checkpointing (``use_reentrant=True``) is a function of autograd, whose context is the same in
    both passes and a variable of a function that runs now. The newer kind tells the innermost block by a variable that
    its hooks can see.
    """
    found, frame = [], sys._getframe(1)
    while frame is not None:
        if frame.f_code in _BLOCKS:
            found.append(ref(frame.f_locals["ctx"]))
        frame = frame.f_back
    pack = (_hooks(True) or (None,))[0]
    pack = getattr(pack, "_torchdynamo_orig_callable", pack)
    if not hasattr(pack, "__code__"):
        return found
    seen = {
        name: cell.cell_contents
        for name, cell in zip(pack.__code__.co_freevars, pack.__closure__ or (), strict=True)
        if name in ("frame", "target_frame_ref")
    }
    newer = seen.get("target_frame_ref") or ("frame" in seen and ref(seen["frame"]))
    return [*found, newer] if newer else found


def _fingerprint(x: Tensor) -> Tensor:
    # In float64, so that batches that differ in one small value are told apart; also the shape counts.
    others = [dim for dim in range(x.dim()) if dim != 1]
    return torch.cat((x.sum(others, dtype=torch.float64), x.new_tensor(x.shape, dtype=torch.float64)))


@contextmanager
def unrecognised() -> Iterator[None]:
    """Treat every forward pass as the first one for the duration of a ``with`` block, as PyTorch's layers do.

    The block must contain the backward pass. It is for measurements of what checkpointing would do.
    """
    global _recognised
    before, _recognised = _recognised, False
    try:
        yield
    finally:
        _recognised = before
