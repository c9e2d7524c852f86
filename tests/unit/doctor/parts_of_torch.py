"""Networks on which a part of PyTorch was used as a row of Appendix C's second page says, for the doctor."""

import copy
import warnings

import torch
from doctor_examples import batches, digits, settle, train
from planted_networks import few, middle, norms, replace, trained, untrained
from torch import nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

NAME = "fully connected"


class Called(nn.Module):
    """A block that a function calls in train mode, such as a checkpoint."""

    def __init__(self, block, call):
        super().__init__()
        self.block, self.call = block, call

    def forward(self, x):
        return self.call(self.block, x) if self.training else self.block(x)


def _steps(model, count=40):
    for layer in norms(model).values():
        layer.reset_running_stats()
    return train(model, batches(count=count), count, lr=0.01)


def _wrapped(call, momentum=0.1):
    model = trained(NAME)
    for layer in norms(model).values():
        layer.momentum = momentum
    place = middle(model)
    return _steps(replace(model, place, Called(model.get_submodule(place), call)))


def checkpointed():
    return _wrapped(lambda block, x: checkpoint(block, x, use_reentrant=False))


def checkpointed_by_the_older_kind():
    return _wrapped(lambda block, x: checkpoint(block, x, use_reentrant=True))


def checkpointed_selectively():
    def policy(_, operation, *arguments, **options):
        saved = "batch_norm" in str(operation)
        return CheckpointPolicy.MUST_SAVE if saved else CheckpointPolicy.PREFER_RECOMPUTE

    def call(block, x):
        return checkpoint(
            block, x, use_reentrant=False, context_fn=lambda: create_selective_checkpoint_contexts(policy)
        )

    return _wrapped(call, momentum=None)


def loaded_under_other_names():
    model = untrained(NAME)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = torch.compile(trained(NAME)).state_dict()
    model.load_state_dict(state, strict=False)
    return model


def loaded_parameters_only():
    model = untrained(NAME)
    model.load_state_dict(dict(trained(NAME).named_parameters()), strict=False)
    return model


def loaded_in_half_precision():
    model = trained(NAME)
    state = {key: value.bfloat16() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    return model


def without_a_counter():
    model = trained(NAME)
    for layer in norms(model).values():
        layer.num_batches_tracked.zero_()
        layer.momentum = None
    return settle(model, batches(count=1, size=4))


def averaged(**options):
    model, some = untrained(NAME), batches(count=40)
    average = AveragedModel(model, **options)
    average.update_parameters(model)
    for start in range(0, 40, 10):
        average.update_parameters(train(model, some[start:], 10, lr=0.5))
    return average.eval()


def averaged_with_buffers():
    return averaged(use_buffers=True)


def averaged_exponentially():
    model = untrained(NAME)
    average = AveragedModel(model, use_buffers=True, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    for start in range(0, 60, 10):
        average.update_parameters(train(model, batches(count=80)[start:], 10, lr=0.5))
    return average


def updated_with_a_last_batch_of_one():
    model = trained(NAME)
    try:
        update_bn([(x, y) for x, y in batches(count=4)] + [(digits().train_x[:1], None)], model)
    except ValueError:
        return model
    raise AssertionError("update_bn did not raise an error")


def updated_with_another_last_batch():
    model = trained(NAME)
    update_bn([x for x, _ in batches(count=3)] + [3 * digits().train_x[:4] + 1], model)
    return model


def from_the_meta_device():
    model = untrained(NAME)
    with torch.device("meta"):
        other = copy.deepcopy(model)
    other = copy.deepcopy(model).to("meta").to_empty(device="cpu")
    other.load_state_dict(dict(trained(NAME).named_parameters()), strict=False)
    for layer in norms(other).values():
        layer.running_mean.fill_(torch.nan)  # what the memory holds differs from run to run
        layer.running_var.fill_(torch.nan)
    return other


def frozen_weights():
    model = trained(NAME)
    name = next(iter(norms(model)))
    for key, module in model.named_modules():
        if not list(module.children()) and key <= name:
            module.requires_grad_(False)
    return model


def pruned():
    model = trained(NAME)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            prune.l1_unstructured(module, "weight", 0.7)
            prune.remove(module, "weight")
    return model


def of_one_process():
    """The statistics of a process that saw one class, as the digits of one client."""
    model = trained(NAME)
    images = digits().train_x[digits().train_y == 3]
    return settle(model, [(each, None) for each in images.split(32)] * 12)


def mean_and_variance_of_two_processes():
    model, other = trained(NAME), trained(NAME)
    settle(other, [(2 * x + 1, None) for x, _ in batches(count=40)])
    for mine, theirs in zip(norms(model).values(), norms(other).values(), strict=True):
        mine.running_var.copy_(theirs.running_var)
    return model


def after_an_infinite_batch():
    model = trained(NAME)
    x = digits().train_x[:32].clone()
    x[0, 0] = torch.inf
    return settle(model, [(x, None)])


def in_bfloat16():
    return trained(NAME).bfloat16()


def with_an_infinite_variance():
    model = trained(NAME)
    next(iter(norms(model).values())).running_var.fill_(torch.inf)
    return model


def without_running_statistics():
    model = trained(NAME)
    torch.func.replace_all_batch_norm_modules_(model)
    return model.eval()


def called_with_other_parameters():
    model = trained(NAME)
    others = {name: 3 * value for name, value in model.named_parameters()}
    with torch.no_grad():
        for x, _ in batches(count=40):
            torch.func.functional_call(model, others, x)
    return model


def _program(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(trained(NAME).train(), few()[0][0])


def exported():
    return _program(lambda model, x: torch.export.export(model, (x,)).module())


def traced():
    return _program(torch.jit.trace)


def in_half_precision(some):
    """The batches in the type of a network that was converted."""
    return [(x.bfloat16(), y) for x, y in some]


MADE = {
    "`torch.utils.checkpoint`: without compiling, `use_reentrant=False`": checkpointed,
    "`torch.utils.checkpoint`: without compiling, `use_reentrant=True`": checkpointed_by_the_older_kind,
    "`torch.utils.checkpoint`: around a compiled block": checkpointed,
    "`torch.compile`: a function that calls `checkpoint` on a block with a graph break": checkpointed,
    "`create_selective_checkpoint_contexts`: a policy that saves the outputs of batch norm, `momentum=None`": (
        checkpointed_selectively
    ),
    "`torch.compile`: its `state_dict`, loaded with `strict=False`": loaded_under_other_names,
    "`torch.export`: a network in train mode": exported,
    "`torch.export`: three runs of the program of a network in train mode": of_one_process,
    "`torch.jit.trace`: a network in train mode, then `eval()`": traced,
    "`AveragedModel`: weights 1, 2 and 3, statistics copied (the default)": averaged,
    "`AveragedModel`: weights 1, 2 and 3, `use_buffers=True`": averaged_with_buffers,
    "`AveragedModel`: EMA with decay 0.99 and `use_buffers=True`, the first 20 steps": averaged_exponentially,
    "`update_bn`: a last batch of one sample": updated_with_a_last_batch_of_one,
    "`update_bn`: a smaller last batch with another mean": updated_with_another_last_batch,
    "`update_bn`: data that are sorted, for example by class": of_one_process,
    "`load_state_dict`: `assign=True`, with a checkpoint in half precision": loaded_in_half_precision,
    "`load_state_dict`: `strict=False`, with the parameters only": loaded_parameters_only,
    "`load_state_dict`: without `num_batches_tracked`, then `momentum=None`": without_a_counter,
    "`to_empty`: a network from the meta device": from_the_meta_device,
    "`requires_grad_(False)`: three more batches in train mode": frozen_weights,
    "`torch.nn.utils.prune`: the weights in front of a batch norm": pruned,
    "`DistributedDataParallel`: means 10 and 40 in two processes": of_one_process,
    "`DistributedDataParallel`: `broadcast_buffers=False`": of_one_process,
    "`DistributedDataParallel`: a forward pass of the wrapper in eval mode, seen from process 1": of_one_process,
    "`fully_shard (FSDP2)`: means 10 and 40 in two processes": of_one_process,
    "`PeriodicModelAverager`: means 10 and 40 in two processes": of_one_process,
    "`torch.distributed.checkpoint`: the `state_dict` of a data-parallel network": mean_and_variance_of_two_processes,
    "`torch.amp.GradScaler`: a step that it skips, because the batch has an infinite value": after_an_infinite_batch,
    "`model.bfloat16()`: 1,500 batches with the momentum 0.001": in_bfloat16,
    "`model.half()`: inputs with a variance above 65,504": with_an_infinite_variance,
    "`torch.func.functional_call`: with other parameters, in train mode": called_with_other_parameters,
    "`replace_all_batch_norm_modules_`: a trained network, then eval mode": without_running_statistics,
}
"""A network for each row for which the doctor has a finding; statistics of other data stand for those of a process."""
