"""The table: what holds for which layer in which situation, and how a cell is tried."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bnlib.arguments import check_one_of
from bnlib.compatibility import copies, derivatives, processes, programs
from bnlib.compatibility.networks import LAYERS, Maker


@dataclass(frozen=True)
class Situation:
    """A situation in which PyTorch puts a layer.

    Attributes:
        holds: what holds there, as a sentence for readers.
        check: takes a function that makes the layer, and raises an error if it does not hold.
        needs: the modules without which it cannot be tried.

    Example:
        >>> compatibility.SITUATIONS["copy.deepcopy"].holds
        'A copy of a trained network goes on training as the original does, and neither changes the other.'
    """

    holds: str
    check: Callable[[Maker], None]
    needs: tuple[str, ...] = ()


_PROCESSES = "Two processes compute what one computes that averages the gradients of the two batches"
SITUATIONS: dict[str, Situation] = {
    "copy.deepcopy": Situation(
        "A copy of a trained network goes on training as the original does, and neither changes the other.",
        copies.deepcopy,
    ),
    "pickle": Situation("The same holds for a pickled network.", copies.pickled),
    "torch.save, weights_only=True": Situation(
        "A stored `state_dict` makes a new network go on as the original does.", copies.state_dict
    ),
    "the meta device, assign=True": Situation(
        "The same holds for a network that was built without memory.", copies.meta
    ),
    "AveragedModel": Situation(
        "Parameters are averaged, and buffers are those of the newest network.", copies.averaged
    ),
    "update_bn": Situation("Running means become averages over the given batches.", copies.updated),
    "torch.compile": Situation("Three training steps give the numbers of eager mode.", programs.compiled),
    "torch.export, eval mode": Situation("The exported program gives the outputs of the network.", programs.exported),
    "ONNX, eval mode": Situation(
        "onnxruntime gives the outputs of the network.", programs.onnx, ("onnx", "onnxruntime", "onnxscript")
    ),
    "torch.jit.trace, eval mode": Situation("The traced program gives the outputs of the network.", programs.traced),
    "fuse_conv_bn_eval": Situation("The fused convolution gives the outputs of convolution and layer.", programs.fused),
    "FakeTensorMode": Situation("Forward and backward pass give the shapes without computing.", programs.fake),
    "torch.inference_mode": Situation(
        "Outputs are those of no_grad, and training goes on.", programs.in_inference_mode
    ),
    "autocast to bfloat16": Situation(
        "Outputs are those of float32 but for rounding, and gradients are float32.", programs.autocast
    ),
    "channels-last": Situation(
        "Numbers are those of the contiguous layout, and the layout stays.", programs.channels_last
    ),
    "torch.utils.checkpoint": Situation(
        "Three training steps give the numbers of training without a checkpoint.", derivatives.checkpointed
    ),
    "torch.utils.checkpoint, use_reentrant=True": Situation(
        "The same holds for the older kind.", derivatives.checkpointed_by_the_older_kind
    ),
    "torch.func.functional_call": Situation(
        "The given tensors are used and changed, and those of the layer are not.", derivatives.called_with_other_tensors
    ),
    "torch.func.vmap over networks": Situation(
        "Each network has the gradients and buffers that it has alone.", derivatives.ensemble
    ),
    "per-sample gradients, eval mode": Situation("They are those of the single samples.", derivatives.per_sample),
    "per-sample gradients, train mode": Situation(
        "They are those of the single samples.", derivatives.per_sample_in_train_mode
    ),
    "a parametrised weight": Situation("The layer uses the weight that is computed.", derivatives.parametrised),
    "a pruned weight": Situation("The layer uses the weight that is left, and trains no other.", derivatives.pruned),
    "DistributedDataParallel": Situation(f"{_PROCESSES}.", partial(processes.in_two_processes, variant="plain")),
    "DistributedDataParallel, static graph": Situation(
        "The same holds.", partial(processes.in_two_processes, variant="static graph")
    ),
    "DistributedDataParallel, unused parameters": Situation(
        "The same holds.", partial(processes.in_two_processes, variant="unused parameters")
    ),
    "DistributedDataParallel, no_sync": Situation(
        f"{_PROCESSES}, summed over two steps.", partial(processes.in_two_processes, variant="no_sync")
    ),
    "FSDP2 (fully_shard)": Situation(
        f"{_PROCESSES}, with buffers of its own in each process.", partial(processes.in_two_processes, variant="fsdp")
    ),
}
"""The situations by name."""

_BATCH_NORMS = ("BatchNorm", "GhostBatchNorm", "SyncBatchNorm", "DomainBatchNorm")
_OVER_BATCHES = ("MovingAverageBatchNorm", "OnlineNorm", "CrossIterationBatchNorm")
_UPDATED = (*_BATCH_NORMS, "NoisyBatchNorm", "BatchRenorm", "FullNorm", *_OVER_BATCHES)
_TWICE = (
    _BATCH_NORMS,
    "differs",
    "As in PyTorch, the running statistics move twice for each batch; the gradients are right. Chapter 11 has "
    "the cure.",
)
_SHARED = (
    ("DomainBatchNorm",),
    "raises",
    "With `shared_affine=True` the weight of one domain must not be replaced; with `shared_affine=False` it may be.",
)
EXCEPTIONS: dict[str, list[tuple[tuple[str, ...], str, str]]] = {
    "update_bn": [
        (
            ("BatchRenorm", "FullNorm", *_OVER_BATCHES),
            "differs",
            "`update_bn` looks for PyTorch's batch norm only, and leaves these layers as they are. They follow the "
            "weights in train mode.",
        )
    ],
    "fuse_conv_bn_eval": [
        (
            ("RMSNorm", "FilterResponseNorm", "EvoNormS0", "DynamicTanh", "CosineLinear"),
            "raises",
            "At inference these layers do more than to scale and to shift, so no convolution can do what they do.",
        ),
        (
            ("OnlineNorm",),
            "differs",
            "PyTorch folds its statistics and leaves out layer scaling, without an error. With `layer_scaling=False` "
            "the outputs are right.",
        ),
        (
            ("MovingAverageBatchNorm",),
            "raises",
            "It has no running mean, which PyTorch's function asks for.",
        ),
        (
            ("CrossIterationBatchNorm",),
            "raises",
            "It contains its layer. Fuse a convolution inside it with a batch norm that has its running statistics.",
        ),
    ],
    "channels-last": [
        (("CosineLinear",), "raises", "It is a linear layer, and takes no images."),
        (("CrossIterationBatchNorm",), "raises", "Tried with a linear layer inside, it takes no images."),
    ],
    "torch.utils.checkpoint": [_TWICE],
    "torch.utils.checkpoint, use_reentrant=True": [_TWICE],
    "torch.func.vmap over networks": [
        (("NoisyBatchNorm",), "raises", "It draws its noise from a seed of its own; train such networks one by one.")
    ],
    "per-sample gradients, train mode": [
        (
            _UPDATED,
            "raises",
            "The statistics of a batch are no sum over samples, and the running statistics cannot be updated for each "
            "sample. Use eval mode.",
        )
    ],
    "a parametrised weight": [_SHARED],
    "a pruned weight": [_SHARED],
}
"""What does not hold: by situation, the layers, the outcome, and the reason."""


def expected(situation: str, layer: str) -> str:
    """Return the outcome that the table has: ``"holds"``, ``"raises"`` or ``"differs"``.

    Example:
        >>> compatibility.expected("torch.utils.checkpoint", "BatchNorm")
        'differs'
    """
    return next((kind for layers, kind, _ in EXCEPTIONS.get(situation, ()) if layer in layers), "holds")


def rows() -> list[dict[str, str]]:
    """Return the rows of the table for ``tables.CaseTable``: a situation, what holds in it, and for which layers.

    Example:
        >>> compatibility.rows()[0]["for which layers"]
        'all layers'
    """
    return [
        {"situation": name, "what holds": case.holds, "for which layers": _exceptions(name)}
        for name, case in SITUATIONS.items()
    ]


def _exceptions(situation: str) -> str:
    listed = [
        f"Not for {', '.join(layers)} ({'an error says so' if kind == 'raises' else 'other numbers'}): {reason}"
        for layers, kind, reason in EXCEPTIONS.get(situation, ())
    ]
    return "\n".join(listed) if listed else "all layers"


def outcome(situation: str, layer: str) -> tuple[str, str]:
    """Try a layer in a situation.

    Arguments:
        situation: a name in ``SITUATIONS``.
        layer: a name in ``LAYERS``.

    Returns:
        One of ``"holds"``; ``"raises"`` with the error's message; ``"differs"``, if other numbers came out than the
        situation promises, with the difference; or ``"untried"``, if a module is missing, with its name.

    Raises:
        ValueError: if there is no such situation or layer.

    Example:
        >>> compatibility.outcome("copy.deepcopy", "FullNorm")
        ('holds', '')
    """
    check_one_of("situation", situation, SITUATIONS)
    check_one_of("layer", layer, LAYERS)
    case = SITUATIONS[situation]
    if missing := [name for name in case.needs if importlib.util.find_spec(name) is None]:
        return "untried", ", ".join(missing)
    try:
        case.check(LAYERS[layer])
    except AssertionError as error:
        return "differs", str(error)
    except Exception as error:
        return "raises", re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")
    return "holds", ""
