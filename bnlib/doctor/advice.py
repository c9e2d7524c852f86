"""The advice for each kind of finding: how it shows, how to test for it, what to do, and where to read on."""

from __future__ import annotations

from bnlib.doctor.advice_about_inputs import ABOUT_INPUTS
from bnlib.doctor.advice_about_statistics import ABOUT_STATISTICS
from bnlib.doctor.advice_form import DEPTH, FAILING, FORMULA, OBJECTIVE, PERILS, TRAINING, Advice

ADVICE: dict[str, Advice] = {
    "one-value-per-channel": Advice(
        group="error",
        symptom=(
            "Training stops with “Expected more than 1 value per channel when training, got input size torch.Size([1, "
            "512])”, often at the last batch of an epoch"
        ),
        cause=(
            "A batch gives a layer one value per channel: one sample after a linear layer, or one image after global "
            "pooling (as in DeepLab's ASPP), one node of a graph, or one point. GroupNorm says the same if each group "
            "holds one value. Often it is the incomplete last batch of an epoch. Keras and Flax raise no error: the "
            "layer outputs beta."
        ),
        test="min(len(x) for x, y in batches) == 1",
        remedy=(
            "For training, use larger batches and drop an incomplete last batch (`DataLoader(drop_last=True)`), or "
            "use a norm that works with one sample: `bnlib.FullNorm`, GroupNorm or LayerNorm. For predictions, call "
            "`model.eval()` first."
        ),
        section=FORMULA + "#forward",
    ),
    "train-mode-at-inference": Advice(
        group="batch",
        symptom=(
            "The same image gets a different prediction in each batch (in a GAN, the same noise vector a different "
            "image), the test accuracy depends on the batch size, or with batch size 1 a single image gets the same "
            "output as any other: always the same class; or the test script, or a loaded model, predicts much worse "
            "than the evaluation and the images logged in training"
        ),
        cause=(
            "The network predicts in train mode, because `model.eval()` was not called. If the evaluation during "
            "training did not call it either, its number is that of the test batches' own statistics. Here "
            "`bns` are the layers at the moment of the prediction or the evaluation."
        ),
        test="any(bn.training for bn in bns)",
        remedy=(
            "Call `model.eval()` before predicting (Keras: `model(x, training=False)` or `predict`; Flax: "
            "`use_running_average=True`). If the model was traced or exported in train mode, export it "
            "again in eval mode."
        ),
        section=PERILS + "#predictions-in-train-mode",
    ),
    "no-running-statistics": Advice(
        group="batch",
        symptom=(
            "Predictions change with the batch although `model.eval()` was called, and the layers have "
            "`track_running_stats=False`"
        ),
        cause="The layers keep no running averages, so eval mode uses the statistics of the batch.",
        test="any(bn.running_mean is None for bn in bns)",
        remedy=(
            "Build the layers with `track_running_stats=True` (to set the attribute later is not enough), load the "
            "weights with `strict=False`, and compute the averages: `torch.optim.swa_utils.update_bn(batches, model)`."
        ),
        section=FORMULA + "#two-modes-and-the-averages-between-them",
    ),
    **ABOUT_STATISTICS,
    **ABOUT_INPUTS,
    "batches-not-representative": Advice(
        group="eval",
        symptom=(
            "The training accuracy is nearly 100 %, but eval mode guesses, even on the training set; the data are "
            "sorted by class, or all images of a batch come from one video clip or one patient"
        ),
        cause="Each batch holds one kind of sample, so its statistics give away the label.",
        test="any(len(y.unique()) == 1 for x, y in batches)",
        remedy=(
            "Shuffle the samples (`DataLoader(shuffle=True)`) so that each batch looks like the data set. If the "
            "batches cannot be changed, use `bnlib.FullNorm` or a norm that does not depend on the batch."
        ),
        section=OBJECTIVE + "#objective-and-evaluation",
    ),
    "batch-composition-memorised": Advice(
        group="eval",
        symptom="The training loss is low, but it rises when I reshuffle the same samples; test accuracy is bad",
        cause=(
            "The batches are the same in each epoch (`shuffle=False`, cached batches, no `set_epoch`), and the "
            "network has memorised them."
        ),
        test='loss["train_reshuffled"] > 1.5 * loss["train"]',
        remedy=(
            "Shuffle the samples again in each epoch (`DataLoader(shuffle=True)`), so that each sample is in a batch "
            "with other samples each time."
        ),
        section=FAILING + "#batches-that-are-never-reshuffled",
    ),
    "eval-depends-on-batch": Advice(
        group="batch",
        symptom=(
            "After `model.eval()` the output for an image still depends on the other images in the batch, by much more "
            "than rounding"
        ),
        cause=(
            "A layer does not follow the mode: `F.batch_norm(training=True)`, layers in a plain list, or a call of "
            "`train()` in `forward`."
        ),
        test="not torch.allclose(model.eval()(x)[:2], model(torch.cat([x[:2], 0 * x[2:]]))[:2], atol=1e-3)",
        remedy=(
            "Make each layer follow its own mode: call `F.batch_norm(..., training=self.training)`, keep layers in "
            "`nn.ModuleList` or `nn.Sequential` instead of a list, and do not call `train()` on a submodule in "
            "`forward()` or `train()`."
        ),
        section=FAILING + "#the-mode-is-read-from-the-wrong-place",
    ),
    "relies-on-batch-statistics": Advice(
        group="eval",
        symptom=(
            "With one or two images per batch, training works and eval mode is bad; recomputing the statistics does "
            "not help"
        ),
        cause="In train mode, the statistics of a tiny batch tell the network something about its images.",
        test='loss["eval_recomputed"] > 1.5 * loss["train"]',
        remedy=(
            "Train with more samples in each batch, because the statistics of one or two images mostly describe these"
            " images. Or use a norm that is the same in both modes: GroupNorm, or InstanceNorm, which does what BN "
            "does to a single image."
        ),
        section=FAILING + "#small-batches",
    ),
    "zero-gamma": Advice(
        group="training",
        symptom=(
            "The network does not learn: the loss stays at that of guessing (2.3 for ten classes), and gradients are"
            " exactly zero"
        ),
        cause="Gamma and beta of a layer in front of a ReLU are 0.",
        test="any(not bn.weight.grad.any() for bn in bns)",
        remedy=(
            "Initialise gamma to 1. Use 0 only in the last norm of a residual branch, with the ReLU after the sum: a "
            "ReLU behind this norm would pass no gradient on to it."
        ),
        section=FAILING + "#gamma-is-zero",
    ),
    "variance-below-eps": Advice(
        group="training",
        symptom="Training is slow with inputs in tiny units, such as metres instead of millimetres",
        cause="The variance of the input is smaller than `eps`, so the layer does not normalise.",
        test="any(bn.running_var.median() < bn.eps for bn in bns)",
        remedy=(
            "Scale the inputs to a variance near 1, remove constant features, and look for dead units below this "
            "layer. Do not only lower eps: then rounding errors grow, in dead units and in a bias in front of BN."
        ),
        section=FAILING + "#inputs-in-other-units",
    ),
    "unstable-rate": Advice(
        group="training",
        symptom="With `FullNorm` the loss jumps or explodes at a learning rate at which batch norm trains",
        cause=(
            "The estimates follow the weights late, by about 1/alpha steps, so large steps are taken in a wrong "
            "direction. Here `lr` is the learning rate."
        ),
        test=(
            '"unstable-rate" in bnlib.diagnose(model, batches, optimiser=torch.optim.SGD(model.parameters(), lr)).codes'
        ),
        remedy=(
            "Use a third of the learning rate, or less momentum. A larger floor of alpha (0.1 in place of 0.03) makes "
            "the estimates faster and noisier."
        ),
        section=FAILING + "#running-averages",
    ),
    "trained-in-eval-mode": Advice(
        group="training",
        symptom=(
            "Batch norm changes nothing in training: the loss is the same in both modes or better in eval mode, and "
            "`num_batches_tracked` stays the same"
        ),
        cause=(
            "`model.eval()` was called before training or for a validation, and `model.train()` was not called after "
            "it. So training uses fixed running statistics and does not normalise by the batch."
        ),
        test="not any(bn.training or bn.num_batches_tracked for bn in bns)",
        remedy=(
            "Call `model.train()` at the beginning of each epoch and after each validation, and train again. Do not "
            "recompute the statistics: the weights are adapted to the present ones. If you froze the statistics "
            "on purpose, compute them from the data before you freeze them."
        ),
        section=FORMULA + "#two-modes-and-the-averages-between-them",
    ),
    "batches-never-reshuffled": Advice(
        group="training",
        symptom="Each epoch has the same batches: the loss curve repeats itself, batch by batch, from epoch to epoch",
        cause=(
            "The DataLoader has `shuffle=False`, or a sampler that starts with the same seed in each epoch. Here "
            "`loader` is the DataLoader of the training."
        ),
        test="all(torch.equal(a[0], b[0]) for a, b in zip(loader, loader))",
        remedy=(
            "Shuffle the samples again in each epoch: `DataLoader(shuffle=True)`, or `sampler.set_epoch(epoch)` with a "
            "DistributedSampler. If this is the loader of a validation, pass the one of the training."
        ),
        section=FAILING + "#batches-that-are-never-reshuffled",
    ),
    "gradient-explosion": Advice(
        group="training",
        symptom=(
            "A deep network without skip connections does not train: the loss is noisy from step to step, even with "
            "the full batch, and the gradients of the first layers explode"
        ),
        cause="With BN and ReLU, the gradient grows by a factor of about 1.2 in each layer.",
        test="bns[0].weight.grad.norm() > 1000 * bns[-1].weight.grad.norm()",
        remedy=(
            "Use fewer layers, or residual (skip) connections. A residual network trains at large learning rates if "
            "it has a norm before its last layer, as with pre-activation blocks; without one, only at small ones. "
            "Rescaling the weights, a larger eps, Batch Renorm, gradient clipping or warm-up do not help."
        ),
        section=DEPTH + "#why-the-gradient-grows",
    ),
    "small-batches": Advice(
        group="training",
        symptom=(
            "Training is erratic or inaccurate with a small batch size, as in detection, segmentation (low mIoU or "
            "mAP), video or 3D volumes, perhaps with SyncBatchNorm on few GPUs; gradient accumulation does not help"
        ),
        cause=(
            "The statistics of a few samples are noisy. In a batch of two vectors, each feature even becomes -1 or 1, "
            "whatever its values."
        ),
        test="len(x) < 16",
        remedy=(
            "If the model is bad in eval mode as well, use larger batches, SyncBatchNorm over several devices, "
            "`bnlib.FullNorm`, or a norm that does not depend on the batch. Accumulating gradients does not help, "
            "because BN still computes its statistics from each micro-batch. With SyncBatchNorm, count the samples of "
            "all devices."
        ),
        section=FAILING + "#small-batches",
    ),
    "loss-higher-in-train-mode": Advice(
        group="training",
        symptom="The training loss is higher than the validation loss",
        cause="In train mode, the noise of small batches raises the loss; eval mode does not have this noise.",
        test='loss["train"] > 1.5 * loss["eval"]',
        remedy="No cure is needed. Judge the network by its loss in eval mode.",
        section=FAILING + "#small-batches",
    ),
    "non-finite-values": Advice(
        group="error",
        symptom=(
            "The loss is NaN in eval mode only, perhaps after some epochs with mixed precision (AMP, autocast, "
            "GradScaler), or `running_mean` or `running_var` is NaN or inf"
        ),
        cause=(
            "One batch with NaN or huge values was enough: train mode forgets it, the running averages do not. After "
            "an overflow, GradScaler skips the step of the optimiser, but the averages have already been updated."
        ),
        test="any(not value.isfinite().all() for value in model.buffers())",
        remedy=(
            "Recompute the statistics: `torch.optim.swa_utils.update_bn(batches, model)` resets them first. Then look "
            "for the cause: an infinite input, an overflow, or a learning rate at which training diverged. With "
            "GradScaler, restore the buffers of each step that it skips."
        ),
        section=TRAINING + "#one-bad-batch-and-eval-mode-is-nan",
    ),
}
"""The advice for each finding, by the finding's code."""
