"""The advice for findings about running statistics: wrong, shared, stored or updated in a wrong way."""

from __future__ import annotations

from bnlib.doctor.advice_form import FAILING, FORMULA, PERILS, TRAINING, Advice

ABOUT_STATISTICS: dict[str, Advice] = {
    "eval-mode-distorted": Advice(
        group="eval",
        symptom=(
            "Eval mode is much worse than train mode, although the running statistics of no single layer look wrong"
        ),
        cause=(
            "The running averages do not belong to these weights or these data: they come from another model, as with "
            "averaged weights or federated clients, or from other data. Small errors in many layers add up."
        ),
        test='loss["eval"] > 1.5 * loss["eval_recomputed"]',
        remedy=(
            "Recompute the statistics: `torch.optim.swa_utils.update_bn(batches, model)`. For FullNorm and BatchRenorm,"
            " call the model on batches in train mode. Then look for the cause: averaged or loaded weights with the "
            "buffers of another model, too few batches in train mode, a learning rate too large for the momentum, or "
            "inputs that are not those of training."
        ),
        section=FAILING + "#running-averages",
    ),
    "eval-worse-than-train": Advice(
        group="eval",
        symptom=(
            "Adding batch norm makes the validation or test accuracy worse (decreases it): eval mode is worse than "
            "train mode, and recomputing the running statistics does not help"
        ),
        cause="Train mode uses something that eval mode does not have, such as the statistics of these very batches.",
        test='loss["eval"] > 1.5 * loss["train"]',
        remedy=(
            "Compare the four losses of `bnlib.doctor.losses_by_mode` on several shuffled batches: they tell which "
            "statistics the network relies on."
        ),
        section=FAILING + "#running-averages",
    ),
    "running-statistics-never-updated": Advice(
        group="eval",
        symptom=(
            "After `model.eval()` the network is as bad as without training, and `running_var` is still 1 in all "
            "channels"
        ),
        cause=(
            "The running averages have their initial values: the layer was never called in train mode, or its "
            "buffers were not loaded."
        ),
        test="any((bn.running_var == 1).all() for bn in bns)",
        remedy=(
            "Train in train mode with a momentum above 0, or load the buffers together with the weights. To compute "
            "the statistics now, call `torch.optim.swa_utils.update_bn(batches, model)`; for FullNorm and "
            "BatchRenorm, call the model on batches in train mode."
        ),
        section=FAILING + "#running-averages",
    ),
    "running-statistics-mismatch": Advice(
        group="eval",
        symptom=(
            "The training loss goes down, but evaluation is bad: with `model.eval()` the accuracy drops and the error "
            "is high, even on the training data, and results are better in train mode (without `eval()`); or the "
            "validation loss explodes or jumps, or all images get the same class, so the validation accuracy stays "
            "constant"
        ),
        cause=(
            "The running averages do not describe the current network: they have seen too few batches, they are "
            "late (the weights have changed since), or the data have changed."
        ),
        test='loss["eval"] > 1.5 * loss["eval_recomputed"]',
        remedy=(
            "Recompute the statistics on data like these: call `torch.optim.swa_utils.update_bn(batches, model)`; for "
            "FullNorm and BatchRenorm, call the model on batches in train mode (Keras: `model(x, training=True)`). "
            "Then look for the cause: different preprocessing, a learning rate too large for the momentum, or buffers "
            "of another checkpoint."
        ),
        section=FAILING + "#running-averages",
    ),
    "negative-variance": Advice(
        group="error",
        symptom="Eval mode gives NaN, although the loss in train mode and all weights are finite",
        cause=(
            "`running_var` (Keras: `moving_variance`) is negative: the buffers were subtracted, extrapolated or "
            "averaged with a negative weight (task arithmetic, merged models), the momentum is not between 0 and 1, a "
            "loader subtracted eps from the variances (Detectron2 until 2021, with checkpoints of `BatchNorm2d`), or "
            "a layer of your own computes E[x²] - E[x]² in low precision."
        ),
        test="any((bn.running_var < 0).any() for bn in bns)",
        remedy=(
            "Recompute the statistics: `torch.optim.swa_utils.update_bn(batches, model)`. When you merge or extrapolate"
            " weights, leave `running_mean` and `running_var` out; in a layer of your own, compute the variance about "
            "the mean."
        ),
        section=FAILING + "#running-averages",
    ),
    "statistics-of-constant-batches": Advice(
        group="eval",
        symptom=(
            "Outputs in eval mode are huge or wrong after a dry run on zeros, for example to build lazy layers or to "
            "count operations"
        ),
        cause=(
            "The dry run was in train mode, so the running averages contain its constant batches, and no real "
            "batches followed."
        ),
        test=(
            "any(bn.num_batches_tracked > 0 and bn.running_var.unique().numel() == 1 and bn.running_var[0] < 1 for bn "
            "in bns)"
        ),
        remedy=(
            "Call `model.eval()` before a dry run, or `reset_running_stats()` on each norm layer after it. For a model "
            "without further training, recompute the statistics: `torch.optim.swa_utils.update_bn(batches, model)`."
        ),
        section=FAILING + "#running-averages",
    ),
    "statistics-not-tracked": Advice(
        group="eval",
        symptom="The running averages stop changing in the middle of a training, and eval mode becomes worse",
        cause=(
            "`track_running_stats` was set to False on layers that have running averages, for example around a pass on "
            "adversarial inputs, and not set back. So train mode does not update them, and eval mode uses the old ones."
        ),
        test="any(not bn.track_running_stats and bn.running_mean is not None for bn in bns)",
        remedy=(
            "Set `track_running_stats = True` again after the pass that must not count, and recompute the statistics: "
            "`torch.optim.swa_utils.update_bn(batches, model)`."
        ),
        section=FAILING + "#running-averages",
    ),
    "frozen-statistics-mismatch": Advice(
        group="after",
        symptom="Fine-tuning with frozen batch norm (in eval mode) learns badly from a good pretrained network",
        cause=(
            "The frozen running averages do not describe the inputs, because these are not prepared as in the first "
            "training: from 0 to 255 in place of 0 to 1, not standardised, or of another kind."
        ),
        test='"frozen-statistics-mismatch" in bnlib.diagnose(model, batches).codes',
        remedy=(
            "Prepare the inputs as in the training that the statistics come from. If the new data are of another kind, "
            "re-estimate the statistics with `torch.optim.swa_utils.update_bn(batches, model)` before you freeze them."
        ),
        section=TRAINING + "#should-i-freeze-batch-norm-when-i-fine-tune",
    ),
    "layers-share-statistics": Advice(
        group="eval",
        symptom=(
            "Two layers always have the same running averages, and eval mode is bad, after loading with "
            "`load_state_dict(assign=True)`"
        ),
        cause=(
            "Both layers were given the same tensors as buffers, without a copy, so each one's batches move the "
            "averages of both."
        ),
        test="len({bn.running_mean.data_ptr() for bn in bns}) < len(bns)",
        remedy=(
            "Give each layer its own buffers: `layer.running_mean = layer.running_mean.clone()`, and the same for "
            "`running_var` and `num_batches_tracked`; or load with `assign=False`. Then recompute the statistics: "
            "`torch.optim.swa_utils.update_bn(batches, model)`."
        ),
        section=FAILING + "#running-averages",
    ),
    "gradient-checkpointing": Advice(
        group="eval",
        symptom=(
            "Two runs with and without gradient checkpointing (activation checkpointing) give different results in "
            "eval mode"
        ),
        cause=(
            "The forward pass of a checkpointed block runs twice, so each batch updates the running averages twice. "
            "Here `steps` counts the training steps."
        ),
        test="any(bn.num_batches_tracked > 1.5 * steps for bn in bns)",
        remedy=(
            "With the default momentum, BN needs no cure. For exactly the same numbers, restore the buffers around "
            "the second pass, or use `momentum=None`."
        ),
        section=TRAINING + "#gradient-checkpointing-updates-the-statistics-twice",
    ),
    "shared-layer": Advice(
        group="eval",
        symptom=(
            "In a Siamese network, a network with several inputs (multi-input, multimodal), a recurrent network (LSTM, "
            "one layer for all time steps) or another network that uses a layer several times, eval mode is worse than "
            "train mode, even with recomputed statistics"
        ),
        cause="The network calls one BN layer several times in a pass, on inputs with different statistics.",
        test='"shared-layer" in bnlib.diagnose(model, batches).codes',
        remedy=(
            "Use a separate norm layer for each kind of input (`bnlib.DomainBatchNorm`, or one layer per time step: "
            "for later steps than in training, take the averages of the last one), or pass all inputs through the "
            "layer in one batch."
        ),
        section=PERILS + "#two-towers",
    ),
    "domain-statistics-differ": Advice(
        group="eval",
        symptom=(
            "Training on several data sets, or on labelled and unlabelled data (semi-supervised) in separate batches, "
            "works in train mode, but eval mode is bad on each of them"
        ),
        cause=(
            "Each training batch comes from one domain, but the running averages pool all domains. Here `domains` "
            "is a dictionary with the batches of each domain."
        ),
        test='"domain-statistics-differ" in bnlib.diagnose(model, batches, domains=domains).codes',
        remedy=(
            "Mix the domains in each batch, or keep statistics for each domain with `bnlib.DomainBatchNorm`. If you "
            "cannot train again, recompute the statistics on each domain separately; statistics of the pooled data are"
            " not enough."
        ),
        section=PERILS + "#why-no-single-statistic-is-right",
    ),
    "unusual-momentum": Advice(
        group="eval",
        symptom=(
            "The validation loss or accuracy is noisy: it jumps (spikes, fluctuates) from one epoch to the next, with "
            "a momentum copied from Keras or TensorFlow"
        ),
        cause=(
            "PyTorch's layers got 0.9 or 0.99, copied from Keras. PyTorch's momentum is the weight of the newest "
            "batch, so near 1 the running averages describe the last batch only."
        ),
        test="max(bn.momentum or 0 for bn in bns) > 0.5",
        remedy=("Use 1 minus Keras's momentum, so 0.01 in PyTorch for Keras's 0.99, or PyTorch's default of 0.1."),
        section=FORMULA + "#two-modes-and-the-averages-between-them",
    ),
    "averaged-weights": Advice(
        group="after",
        symptom=(
            "A model with averaged weights (EMA, SWA, mean teacher, momentum encoder, Lightning's "
            "`StochasticWeightAveraging`) is much worse than the model whose weights it averages, and works with "
            "GroupNorm; or a GAN, a diffusion model or a diffusion policy converges, but the samples or actions of "
            "its EMA model are bad"
        ),
        cause=(
            "The running averages belong to other weights than the averaged ones, or still contain their initial "
            "values, because a loop over `parameters()` leaves the buffers out. GroupNorm has no running averages. "
            "Here `model` is the averaged model."
        ),
        test='loss["eval"] > 1.5 * loss["eval_recomputed"]',
        remedy=(
            "Recompute the statistics for the averaged weights: `torch.optim.swa_utils.update_bn(batches, "
            "averaged_model)`. Copied or averaged buffers are not exact. In Keras, call the averaged model with "
            "`training=True` on batches until its moving averages have settled."
        ),
        section=TRAINING + "#which-statistics-belong-to-averaged-weights",
    ),
    "counters-differ": Advice(
        group="after",
        symptom="The layers of one checkpoint have different values of `num_batches_tracked`",
        cause=(
            "Parts of the model come from different trainings, a layer was frozen, replaced or left out for a time, or "
            "the model calls a layer several times in a step."
        ),
        test="len({int(bn.num_batches_tracked) for bn in bns}) > 1",
        remedy=(
            "A pretrained backbone with a new head needs no cure. Otherwise, load all buffers from one checkpoint, and "
            "compare the running statistics with the data, as bnlib.diagnose does. The counter itself matters only "
            "with `momentum=None`."
        ),
        section=FAILING + "#running-averages",
    ),
    "frozen-layer-updates-statistics": Advice(
        group="after",
        symptom=(
            "I froze the backbone with `requires_grad_(False)` or `eval()`, but its running statistics and outputs "
            "still change during fine-tuning, or `model.train()` resets the mode after a validation (Lightning, "
            "Hugging Face, fastai, `freeze` of Ultralytics YOLO)"
        ),
        cause=(
            "In train mode a frozen layer still updates its running averages, and each `model.train()`, which trainers "
            "call too, puts all layers in train mode again."
        ),
        test="any(bn.training and not bn.weight.requires_grad for bn in bns)",
        remedy=(
            "Call `eval()` on frozen norm layers after each `model.train()`, because `requires_grad_(False)` does not"
            " stop the updates of the running statistics."
        ),
        section=PERILS + "#exercise-1-find-the-bug",
    ),
    "half-precision-statistics": Advice(
        group="after",
        symptom="Eval mode is inaccurate after training with `model.half()` or with all weights in bfloat16",
        cause=(
            "The running averages have 16 bits. Rounding swallows small updates, so the averages stop short of the "
            "data. In float16, variances above 65,504 overflow."
        ),
        test="any(bn.running_var.itemsize < 4 for bn in bns)",
        remedy=(
            "Keep norm layers in float32: call `layer.float()` on them after `model.half()`, or train with "
            "`torch.autocast`, which keeps them in float32."
        ),
        section=TRAINING + "#running-statistics-in-half-precision",
    ),
}
"""The advice for each of these findings, by the finding's code."""
