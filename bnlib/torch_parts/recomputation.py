"""Parts that run the forward pass again: gradient checkpointing, L-BFGS, checks of gradients, and dry runs."""

from __future__ import annotations

import copy
import functools

import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from torch.utils.flop_counter import FlopCounterMode

from bnlib.experiments.training_code.gradient_checkpointing import same_state
from bnlib.torch_parts.measuring import BATCH, Measured, Numbers, Part, copied_buffers, network, statistics, train


def compiled(function, **options):
    """Compile without generating code, which takes long; the statistics are those of the default backend."""
    torch._dynamo.reset()
    return torch.compile(function, **({"backend": "aot_eager"} | options))


def _with_checkpoint(**options) -> Numbers:
    model = network()
    return train(model, lambda x: checkpoint(model, x, **options))


def _from_the_same_state() -> Numbers:
    model = network()
    return train(model, lambda x: checkpoint(model, x, use_reentrant=False, context_fn=same_state(model)))


def checkpointed() -> Measured:
    """Train with a checkpoint, without compiling."""
    return Measured(train(network()), _with_checkpoint(use_reentrant=False), _from_the_same_state())


def checkpointed_by_the_older_kind() -> Measured:
    """Train with the older kind of checkpoint; the remedy is another momentum."""
    model = network(nn.BatchNorm1d(1, momentum=1 - 0.9**0.5))
    remedied = train(model, lambda x: checkpoint(model, x, use_reentrant=True))
    found, expected = _with_checkpoint(use_reentrant=True), train(network())
    return Measured(*({key: each[key] for key in list(each)[1:]} for each in (expected, found, remedied)))


@functools.cache
def checkpoint_inside() -> Measured:
    """Compile a function that calls a checkpoint."""
    model = network()
    return Measured(train(network()), train(model, compiled(lambda x: checkpoint(model, x, use_reentrant=False))))


def checkpoint_outside() -> Measured:
    """Checkpoint a compiled block."""
    model = network()
    block = compiled(model)
    found = train(model, lambda x: checkpoint(block, x, use_reentrant=False))
    return Measured(train(network()), found, checkpoint_inside().found)


class _Breaking(nn.Module):
    """The network, and then a line that the compiler cannot compile."""

    def __init__(self) -> None:
        super().__init__()
        self.block = network()

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(x)
        torch._dynamo.graph_break()
        return y.clone()


def checkpoint_with_a_graph_break() -> Measured:
    """Compile a function that checkpoints a block with a graph break; the remedy is to have the break outside."""
    broken, model = _Breaking(), _Breaking()
    found = train(broken, compiled(lambda x: checkpoint(broken, x, use_reentrant=False)))

    def outside(x):
        y = checkpoint(model.block, x, use_reentrant=False)
        torch._dynamo.graph_break()
        return y.clone()

    return Measured(train(network()), found, train(model, compiled(outside)))


def _save_batch_norms(context, operation, *arguments, **options) -> CheckpointPolicy:
    kept = "batch_norm" in str(operation)
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def selective_checkpoint() -> Measured:
    """Save the outputs of batch norms and compute the rest again, with means over all batches (momentum=None)."""
    batches = [BATCH, 2 * BATCH, 3 * BATCH]
    keep = functools.partial(create_selective_checkpoint_contexts, _save_batch_norms)
    plain, model, other = (network(nn.BatchNorm1d(1, momentum=None)) for _ in range(3))
    found = train(model, lambda x: checkpoint(model, x, use_reentrant=False, context_fn=keep), batches)
    cure = same_state(other)
    remedied = train(other, lambda x: checkpoint(other, x, use_reentrant=False, context_fn=cure), batches)
    return Measured(train(plain, batches=batches), found, remedied)


def lbfgs() -> Measured:
    """Take three steps of L-BFGS, whose closure runs the forward pass many times."""
    found, remedied = _steps_of_lbfgs(restore=False), _steps_of_lbfgs(restore=True)
    return Measured(train(network()), found, remedied)


def _steps_of_lbfgs(restore: bool) -> Numbers:
    norm = nn.BatchNorm1d(1)
    model = nn.Sequential(norm, nn.Linear(1, 1))
    optimiser = torch.optim.LBFGS(model.parameters(), lr=0.1)

    def closure():
        optimiser.zero_grad()
        loss = (model(BATCH) - BATCH.flip(0)).square().sum()
        loss.backward()
        return loss

    for _ in range(3):
        before = copied_buffers(model)
        optimiser.step(closure)
        if restore:
            model.load_state_dict(before, strict=False)
            model(BATCH)
    return statistics(norm)


def checked_gradients() -> Measured:
    """Check the gradients of a network with ``gradcheck``."""
    model, other = network().double(), network().double()
    x = BATCH.double().requires_grad_()
    gradcheck(model, x)
    gradcheck(copy.deepcopy(other), x)
    return Measured(statistics(network()), statistics(model), statistics(other))


def counted_operations() -> Measured:
    """Count the operations of a forward pass on zeros."""
    model, other = network(), network().eval()
    for each in (model, other):
        with FlopCounterMode(display=False):
            each(torch.zeros(4, 1))
    return Measured(statistics(network()), statistics(model), statistics(other))


_CURE = "[chapter 11](11_training_code.ipynb#gradient-checkpointing-updates-the-statistics-twice)"
PARTS = [
    Part(
        "torch.utils.checkpoint",
        "without compiling, `use_reentrant=False`",
        checkpointed,
        "The backward pass runs the block again, so the statistics move twice per step. Outputs and gradients are "
        "right.",
        "`num_batches_tracked` is twice the number of steps.",
        f"Let the second pass start from the buffers of the first, as in {_CURE}.",
    ),
    Part(
        "torch.utils.checkpoint",
        "without compiling, `use_reentrant=True`",
        checkpointed_by_the_older_kind,
        "The same happens with the older implementation.",
        "`num_batches_tracked` is twice the number of steps.",
        "Where each block is run exactly twice, the momentum 1 − √0.9 = 0.051 in place of 0.1 gives the same "
        "averages; the counter still counts twice.",
    ),
    Part(
        "torch.compile",
        "a function that calls `checkpoint`",
        checkpoint_inside,
        "The compiler removes the second update, so the statistics move once.",
        "`num_batches_tracked` is the number of steps.",
        "Nothing. But the momentum above would now be too small: choose the remedy for what you run.",
    ),
    Part(
        "torch.utils.checkpoint",
        "around a compiled block",
        checkpoint_outside,
        "The order matters: `checkpoint(torch.compile(block), x)` updates twice.",
        "`num_batches_tracked` is twice the number of steps.",
        "Compile the function that calls `checkpoint`, not the block inside it.",
    ),
    Part(
        "torch.compile",
        "a function that calls `checkpoint` on a block with a graph break",
        checkpoint_with_a_graph_break,
        "The compiler gives the block back to Python, which updates twice. There is no message by default.",
        "`torch.compile(..., fullgraph=True)` raises an error; `TORCH_LOGS=graph_breaks` shows the line.",
        "Move the line that breaks the graph out of the checkpointed block.",
    ),
    Part(
        "create_selective_checkpoint_contexts",
        "a policy that saves the outputs of batch norm, `momentum=None`",
        selective_checkpoint,
        "The running statistics move once, but the counter moves twice. With `momentum=None` the weight of a batch is "
        "one divided by the counter, so late batches weigh too little. With a number as momentum only the counter is "
        "wrong.",
        "`num_batches_tracked` is twice the number of steps.",
        f"Use a number as momentum, or the remedy of {_CURE}, which we measured.",
    ),
    Part(
        "torch.optim.LBFGS",
        "three steps",
        lbfgs,
        "Each step calls the closure up to 20 times, and each call is a forward pass in train mode.",
        "`num_batches_tracked` is many times the number of steps.",
        "Copy the buffers before `step`, load them afterwards, and run one forward pass.",
    ),
    Part(
        "torch.autograd.gradcheck",
        "a network in train mode",
        checked_gradients,
        "It runs the forward pass again for every input that it changes. The changes are tiny, so the gradients are "
        "right, but the statistics move every time.",
        "`num_batches_tracked` is not 0 before training.",
        "Check a `copy.deepcopy` of the network.",
    ),
    Part(
        "torch.utils.flop_counter",
        "a dry run on zeros before training",
        counted_operations,
        "The dry run is a forward pass like any other, so the statistics move towards those of zeros. Tools that print "
        "a summary of a network do the same.",
        "`num_batches_tracked` is not 0 before training.",
        "Call `model.eval()` before the dry run and `model.train()` after it.",
    ),
]
"""The parts of this file."""
