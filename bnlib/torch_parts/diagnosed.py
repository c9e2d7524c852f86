"""What the doctor says about a network on which a part of PyTorch was used, or why a network does not show it."""

from __future__ import annotations

NO_STEPS = "No check, because a counter is only wrong beside the number of steps, which the doctor does not know"
NOT_THERE = "No check, because the network itself is not changed"
NO_NETWORK = "No check, because the error leaves nothing to diagnose"
IF_IT_HURTS = "if the loss in eval mode is clearly worse"

_CHECKPOINT = "`gradient-checkpointing`"
_AVERAGE = "`averaged-weights`"
_EMPTY = "`running-statistics-never-updated`"
_NAN = "`non-finite-values`"
_HALF = "`half-precision-statistics`"
_OTHER_DATA = f"`eval-mode-distorted`, {IF_IT_HURTS}"

DIAGNOSED = {
    "`torch.utils.checkpoint`: without compiling, `use_reentrant=False`": _CHECKPOINT,
    "`torch.utils.checkpoint`: without compiling, `use_reentrant=True`": _CHECKPOINT,
    "`torch.utils.checkpoint`: around a compiled block": f"{_CHECKPOINT}, before the block is compiled",
    "`torch.compile`: a function that calls `checkpoint` on a block with a graph break": (
        f"{_CHECKPOINT}, before the function is compiled"
    ),
    "`create_selective_checkpoint_contexts`: a policy that saves the outputs of batch norm, `momentum=None`": (
        _CHECKPOINT
    ),
    "`torch.optim.LBFGS`: three steps": NO_STEPS,
    "`torch.autograd.gradcheck`: a network in train mode": NO_STEPS,
    "`torch.utils.flop_counter`: a dry run on zeros before training": (
        "No check, because a dry run is forgotten after some batches of training"
    ),
    "`torch.compile`: `momentum=None` and `fullgraph=True`": NO_NETWORK,
    "`torch.compile`: its `state_dict`, loaded with `strict=False`": _EMPTY,
    "`torch.export`: a network in train mode": "`train-mode-at-inference`, for the program",
    "`torch.export`: three runs of the program of a network in train mode": _OTHER_DATA,
    "`torch.onnx.export`: a call of `F.batch_norm(x, mean, variance, training=True)`, `dynamo=True`": (
        "No check, because the file is consistent in itself"
    ),
    "`torch.onnx.export`: a network in train mode, `dynamo=False`, `TrainingMode.PRESERVE`": NO_STEPS,
    "`torch.jit.trace`: a network in train mode, then `eval()`": "`train-mode-at-inference`, for the program",
    "`AveragedModel`: weights 1, 2 and 3, statistics copied (the default)": _AVERAGE,
    "`AveragedModel`: weights 1, 2 and 3, `use_buffers=True`": _AVERAGE,
    "`AveragedModel`: EMA with decay 0.99 and `use_buffers=True`, the first 20 steps": _AVERAGE,
    "`update_bn`: a last batch of one sample": (
        "`counters-differ`: the layers in front of the error have counted one batch more"
    ),
    "`update_bn`: a smaller last batch with another mean": _OTHER_DATA,
    "`update_bn`: data that are sorted, for example by class": _OTHER_DATA,
    "`update_bn`: a network with a frozen batch norm": (
        "No check, because the new statistics fit the data; only the old ones were wanted"
    ),
    "`state_dict`: kept in a variable as the best state": NOT_THERE,
    "`load_state_dict`: `assign=True`, with the state of another network": (
        "No check, because only the other network shows it"
    ),
    "`load_state_dict`: `assign=True`, with a checkpoint in half precision": _HALF,
    "`load_state_dict`: as usual, after the same `state_dict` was loaded with `assign=True`": (
        "No check, because only the other network shows it"
    ),
    "`load_state_dict`: `strict=False`, with the parameters only": _EMPTY,
    "`load_state_dict`: without `num_batches_tracked`, then `momentum=None`": (
        "`eval-mode-distorted`, after the first small batch of the new training"
    ),
    "`to_empty`: a network from the meta device": f"{_NAN}, if the memory held such values",
    "`LazyBatchNorm`: a dry run on zeros for the sizes": (
        "No check, because a dry run is forgotten after some batches of training"
    ),
    "`requires_grad_(False)`: three more batches in train mode": "`frozen-layer-updates-statistics`",
    "`torch.nn.utils.prune`: the weights in front of a batch norm": _OTHER_DATA,
    "`torch.nn.utils.prune`: the weight of a batch norm, then `copy.deepcopy`": NO_NETWORK,
    "`convert_sync_batchnorm`: a subclass with a forward pass of its own": (
        "No check, because the converted network is consistent in itself"
    ),
    "`DistributedDataParallel`: means 10 and 40 in two processes": _OTHER_DATA,
    "`DistributedDataParallel`: `broadcast_buffers=False`": _OTHER_DATA,
    "`DistributedDataParallel`: a forward pass of the wrapper in eval mode, seen from process 1": _OTHER_DATA,
    "`fully_shard (FSDP2)`: means 10 and 40 in two processes": _OTHER_DATA,
    "`fully_shard (FSDP2)`: `MixedPrecisionPolicy(param_dtype=torch.bfloat16)`, on CPUs": NO_NETWORK,
    "`PeriodicModelAverager`: means 10 and 40 in two processes": _OTHER_DATA,
    "`torch.distributed.checkpoint`: the `state_dict` of a data-parallel network": _OTHER_DATA,
    "`torch.amp.GradScaler`: a step that it skips, because the batch has an infinite value": _NAN,
    "`model.bfloat16()`: 1,500 batches with the momentum 0.001": _HALF,
    "`model.half()`: inputs with a variance above 65,504": _NAN,
    "`torch.inference_mode`: three batches in train mode": (
        "No check, because the statistics are those of data that the network sees anyway"
    ),
    "`torch.inference_mode`: a network that is copied inside, and trained later": NO_NETWORK,
    "`fuse_conv_bn_eval`: a transposed convolution": "No check, because no batch norm is left",
    "`fuse_conv_bn_eval`: a transposed convolution with two groups, `transpose=True`": NO_NETWORK,
    "`torch.ao.quantization.prepare_qat`: a batch norm that is frozen by `eval()`, and then `model.train()`": (
        "No check, because a layer does not remember that it was in eval mode"
    ),
    "`torch.func.functional_call`: with other parameters, in train mode": "`running-statistics-mismatch`",
    "`torch.func.grad`: a network in train mode": NO_NETWORK,
    "`torch.func.vmap`: over three networks, with stacked parameters only": NO_NETWORK,
    "`replace_all_batch_norm_modules_`: a trained network, then eval mode": "`no-running-statistics`",
}
"""Codes of findings, or the reason why there is none, by the title of a part that does not do what is expected."""


def diagnosed(title: str) -> str:
    """Return what the doctor says, as a sentence; of a part that does what is expected, that there is nothing to find.

    Example:
        >>> from bnlib.torch_parts.diagnosed import diagnosed
        >>> diagnosed("`torch.func.functional_call`: with other parameters, in train mode")
        '`running-statistics-mismatch`.'
    """
    return f"{DIAGNOSED[title]}." if title in DIAGNOSED else "There is nothing to find."
