"""Recognise the second forward pass over a batch that ``torch.utils.checkpoint`` makes during the backward pass.

Activation checkpointing saves memory: it forgets the activations after the forward pass and computes them again when
the backward pass needs them. A layer that changes in its forward pass must then give the output of the first pass
again, and must not change once more.

A layer remembers its passes by the checkpointed block that they belong to, for as long as the graph of the block
lives. Of passes that belong to no block that it knows, such as those without gradients, it remembers the newest ones;
if a pass is needed that it has forgotten, it raises an error.
"""

from __future__ import annotations

import itertools
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import is_fake
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode_stack
from torch.utils.checkpoint import _CachedTorchDispatchMode, _CachingTorchDispatchMode

from bnlib.norm.buffers import is_eager

# The running backward pass, in which a forward pass is a repetition, the hooks that keep no activations, the contexts
# of functions, and the modes of selective checkpointing. PyTorch has no public names for them.
_backward_pass, _hooks = torch._C._current_graph_task_id, torch._C._autograd._top_saved_tensors_default_hooks
_Context, _number_of_modes = torch._C._FunctionBase, torch._C._len_torch_dispatch_stack
_SELECTIVE = _CachedTorchDispatchMode, _CachingTorchDispatchMode
# Enough for the micro-batches of a pipeline. A pass without gradients is remembered as well, because a checkpoint may
# make its first pass without gradients.
_MOST_PASSES = 64
_SEEN = nullcontext()
_recognised = True
_MEMORIES: WeakKeyDictionary[nn.Module, Memory] = WeakKeyDictionary()
_numbers = itertools.count()


def unseen() -> AbstractContextManager:
    """Hide what stands in a ``with`` block from selective checkpointing: it is computed in both passes.

    Such a checkpoint expects the same operations in both passes, and what it saves must not be a view of a buffer.
    """
    if torch.compiler.is_compiling():
        return nullcontext()
    selective = _number_of_modes() and any(isinstance(each, _SELECTIVE) for each in _get_current_dispatch_mode_stack())
    return _disable_current_modes() if selective else _SEEN


class FirstPass:
    """What a layer was before a forward pass that may be computed again.

    Attributes:
        number: the passes of all layers in their order.
        buffers: the buffers of the layer by name; they change as the layer is trained.
        fingerprint: the sum over each channel of the input, by which the batch is recognised.
        uses: how often the pass has been computed again.
        backward_passes: how many backward passes have gone through it.
    """

    def __init__(self, layer: nn.Module, x: Tensor) -> None:
        self.number, self.uses, self.backward_passes = next(_numbers), 0, 0
        self.buffers = dict(layer._buffers)
        self.fingerprint = _fingerprint(x)
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


class Block:
    """The passes of a layer in a checkpointed block, which computes them again in their order."""

    def __init__(self) -> None:
        self.passes: list[FirstPass] = []
        self._backward_pass, self._next = -1, 0

    def recall(self, fingerprint: Tensor) -> FirstPass:
        """Return the next pass, or if its batch is another one, the pass over the same batch that comes next."""
        if self._backward_pass != _backward_pass():  # it may have ended early the last time
            self._backward_pass, self._next = _backward_pass(), 0
        start = self._next % len(self.passes)
        order = self.passes[start:] + self.passes[:start]
        # A batch that PyTorch does not compute exactly alike is that of the next pass.
        same = order[:1] if _is_same(order[0], fingerprint) else _over_same_batch(order, fingerprint)
        found = same[0] if same else order[0]
        self._next = self.passes.index(found) + 1
        return found


class Memory:
    """The passes of a layer that may be computed again, each for as long as it can be.

    Attributes:
        blocks: the passes by checkpointed block; a block lives as long as the graph that needs it.
        others: the newest passes that belong to no known block.
        forgotten: the number of older ones.
    """

    def __init__(self) -> None:
        self.blocks: WeakKeyDictionary[object, Block] = WeakKeyDictionary()
        self.others: deque[FirstPass] = deque(maxlen=_MOST_PASSES)
        self.forgotten = 0

    def add(self, found: FirstPass, blocks: list[object]) -> None:
        """Remember a pass in the blocks that it belongs to."""
        for block in blocks:
            self.blocks.setdefault(block, Block()).passes.append(found)
        if not blocks:
            self.forgotten += len(self.others) == self.others.maxlen
            self.others.append(found)

    def recall(self, layer: nn.Module, fingerprint: Tensor) -> FirstPass | None:
        """Return the pass over a batch if PyTorch does not tell the block; the one that was used least often."""
        known = itertools.chain(self.others, *[block.passes for block in self.blocks.values()])
        ordered = sorted(dict.fromkeys(known), key=lambda each: -each.number)
        same = _over_same_batch(ordered, fingerprint)
        if not same and self.forgotten:
            raise RuntimeError(
                f"{type(layer).__name__} gets a batch in a backward pass and cannot tell whether it is computed again: "
                f"it remembers the last {_MOST_PASSES} passes outside of known checkpoints and has forgotten "
                f"{self.forgotten} earlier ones; use torch.utils.checkpoint, whose passes it remembers as long as they "
                f"are needed, make at most {_MOST_PASSES} passes before the backward pass, or leave this layer out of "
                "the block"
            )
        if not same:
            return None
        found = min(same, key=lambda each: each.uses)
        if any(each.uses == found.uses and each.differs_from(found) for each in same):
            raise RuntimeError(
                f"{type(layer).__name__} has seen equal batches several times, and PyTorch does not tell which of them "
                "is computed again in this backward pass; use torch.utils.checkpoint, or leave this layer out of the "
                "block"
            )
        return found


def _equal(values: dict[str, Tensor | None], others: dict[str, Tensor | None]) -> bool:
    pairs = [(value, others[name]) for name, value in values.items()]
    return all(
        value is other or (other is not None and value.device == other.device and torch.equal(value, other))
        for value, other in pairs
    )


def first_pass(layer: nn.Module, x: Tensor) -> FirstPass | None:
    """Return the first pass over ``x`` if this is the second one; else remember the pass if it may be repeated.

    Call it at the beginning of a forward pass in train mode. It and the pass must be ``unseen``. Compiled code
    recognises no second pass; ``buffers.hold`` raises an error there.

    Raises:
        RuntimeError: if the pass may be the second one over a batch, and the first one is forgotten or ambiguous, or
            the tensor has no values to recognise it by, as under ``torch.func``.
    """
    if torch.compiler.is_compiling():
        return None
    repeated = _backward_pass() != -1
    if not (repeated or not torch.is_grad_enabled() or _hooks(True) is not None):
        return None
    if is_eager(x):
        if not repeated:
            _remember(layer, x)
        return _recall(layer, x) if repeated and _recognised else None
    if repeated and _recognised and not is_fake(x):
        raise RuntimeError(
            f"{type(layer).__name__} in train mode cannot recognise a batch that torch.utils.checkpoint computes again "
            "under torch.func, as in a stack of models, or with a tensor class that has operations of its own, such as "
            "DTensor; leave out the checkpoint for this part of the model"
        )
    return None


def refuse_other_mode(layer: nn.Module, x: Tensor) -> None:
    """Raise an error if a layer in eval mode gets a batch that a checkpoint computes again, seen first in train mode.

    The gradient would be that of other numbers than the output. Call it in a forward pass in eval mode.
    """
    if torch.compiler.is_compiling() or _backward_pass() == -1 or not _recognised or not is_eager(x):
        return
    if (memory := _MEMORIES.get(layer)) is None:
        return
    passes = [each for block in _blocks()[1] if block in memory.blocks for each in memory.blocks[block].passes]
    fingerprint = _fingerprint(x.detach())
    if any(_is_same(each, fingerprint) for each in passes):
        raise RuntimeError(
            f"{type(layer).__name__} must be in the mode of the first pass when torch.utils.checkpoint computes a "
            "batch again, got eval mode after train mode; call train() before backward(), and eval() after it"
        )


def _remember(layer: nn.Module, x: Tensor) -> None:
    _MEMORIES.setdefault(layer, Memory()).add(FirstPass(layer, x.detach()), _blocks()[0])


def _recall(layer: nn.Module, x: Tensor) -> FirstPass | None:
    if (memory := _MEMORIES.get(layer)) is None:
        return None
    fingerprint = _fingerprint(x.detach())
    running, repeated = _blocks()
    known = [memory.blocks[block] for block in repeated if block in memory.blocks]
    if known:  # a block inside of another one has the fewest passes
        found = min(known, key=lambda each: len(each.passes)).recall(fingerprint)
    elif (found := memory.recall(layer, fingerprint)) is None:
        return None
    found.uses += 1
    if running:
        memory.add(found, running)
    # Some programs restore the buffers before the second pass and count on it to change them once more.
    return None if found.is_restored(layer) else found


def _blocks() -> tuple[list[object], list[object]]:
    """Return the checkpointed blocks that run for the first time, and those that are computed again.

    They are empty if PyTorch does not tell. The older kind of checkpointing (``use_reentrant=True``), like those of
    other libraries, is a function of autograd, whose context is the same in both passes and an argument of a function
    that runs now. The newer kind tells the innermost block by a variable that its hooks can see.
    """
    found: dict[str, list[object]] = {"forward": [], "backward": []}
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name in found and code.co_argcount and code.co_varnames[0] != "self":
            context = frame.f_locals.get(code.co_varnames[0])
            if isinstance(context, _Context) and context not in found[code.co_name]:
                found[code.co_name].append(context)
        frame = frame.f_back
    pack = (_hooks(True) or (None,))[0]
    pack = getattr(pack, "_torchdynamo_orig_callable", pack)
    if hasattr(pack, "__code__"):
        seen = dict(zip(pack.__code__.co_freevars, pack.__closure__ or (), strict=True))
        if "target_frame_ref" in seen:
            found["backward"].append(seen["target_frame_ref"].cell_contents())
        elif "frame" in seen:
            found["forward"].append(seen["frame"].cell_contents)
    return found["forward"], found["backward"]


def _fingerprint(x: Tensor) -> Tensor:
    # In float64, so that batches that differ in one small value are told apart; also the shape counts.
    others = [dim for dim in range(x.dim()) if dim != 1]
    return torch.cat((x.sum(others, dtype=torch.float64), x.new_tensor(x.shape, dtype=torch.float64)))


def _is_same(found: FirstPass, fingerprint: Tensor) -> bool:
    return found.fingerprint.device == fingerprint.device and torch.equal(found.fingerprint, fingerprint)


def _over_same_batch(passes: list[FirstPass], fingerprint: Tensor) -> list[FirstPass]:
    """Return the passes over a batch with this fingerprint; or up to rounding, if there is none."""
    kind = fingerprint.shape, fingerprint.device
    alike = [each for each in passes if (each.fingerprint.shape, each.fingerprint.device) == kind]
    return [each for each in alike if torch.equal(each.fingerprint, fingerprint)] or [
        each for each in alike if torch.allclose(each.fingerprint, fingerprint, rtol=1e-5, atol=0, equal_nan=True)
    ]


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
