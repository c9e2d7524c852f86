"""Causes of trouble with batch norm that ``bnlib.diagnose`` does not look for, but that the book explains."""

from __future__ import annotations

from bnlib.doctor.advice import Advice

CAUSES_WITHOUT_A_FINDING: dict[str, Advice] = {
    "feature-hardly-varies": Advice(
        group="error",
        symptom=(
            "The loss becomes NaN or huge, or a few samples get huge outputs, while the test error looks fine; among "
            "the inputs are constant pixels, or one-hot, binary or sparse features that are rarely 1"
        ),
        cause=(
            "A feature or a pixel hardly varies in the training data, or is constant in most batches. If it varies "
            "later, BN multiplies the change by up to 316."
        ),
        test="any((bn.running_var < bn.eps).any() for bn in bns)",
        remedy="Remove the features that hardly vary, or use a larger eps in the first layer.",
        section="chapters/01_the_formula.ipynb#epsilon-and-features-that-hardly-vary",
    ),
    "sync-norm-on-cpu": Advice(
        group="error",
        symptom=(
            "On a CPU, the model stops with “SyncBatchNorm expected input tensor to be on GPU”, or on one GPU with "
            "“Default process group has not been initialized” or “SyncBatchNorm is only supported within "
            "torch.nn.parallel.DistributedDataParallel”"
        ),
        cause=(
            "In train mode, and once a process group exists, PyTorch's SyncBatchNorm works on GPUs only. In eval mode "
            "it runs everywhere. The other messages are those of old versions, such as PyTorch 1.7, and of SyncBN in "
            "MMDetection and Detectron2."
        ),
        test="any(isinstance(bn, nn.SyncBatchNorm) and bn.training for bn in bns) and x.device.type == 'cpu'",
        remedy=(
            "For predictions, call `model.eval()` first, or load the same `state_dict` into a model with `BatchNorm` "
            "(`SyncBN` → `BN` in the config). To train on CPUs, use `bnlib.SyncBatchNorm`."
        ),
        section="chapters/10_many_machines.ipynb#joining-the-batches",
    ),
    "rounded-bias": Advice(
        group="eval",
        symptom="The training loss is low, but the test error is that of guessing, with inputs in tiny units",
        cause=(
            "Rounding moves a bias in front of BN by many standard deviations, and the running averages follow too "
            "late."
        ),
        test="x.std() < 1e-3",
        remedy="Standardise the inputs, and use `bias=False` in front of BN.",
        section="chapters/07_why_is_my_bn_failing.ipynb#inputs-in-other-units",
    ),
    "dropout-in-front": Advice(
        group="eval",
        symptom=(
            "Dropout and batch norm together (dropout before BN) are worse than either alone: eval mode is worse than "
            "train mode"
        ),
        cause=(
            "Dropout in front of BN raises the variance of BN's input in train mode only. So the running variance is "
            "too large for eval mode (variance shift)."
        ),
        test='"dropout" in str(bnlib.diagnose(model, batches))',
        remedy=(
            "Move dropout behind the last BN layer, or lower its rate. For a trained model, recompute the statistics "
            "with BN in train mode and dropout in eval mode."
        ),
        section="chapters/07_why_is_my_bn_failing.ipynb#running-averages",
    ),
    "covariate-shift": Advice(
        group="eval",
        symptom=(
            "Good on the test set, but bad on data from another camera, hospital or site, or on images of another size "
            "(resolution) than in training, or on clean images after training on strongly augmented ones (mixup, "
            "CutMix)"
        ),
        cause=(
            "The statistics of the new inputs differ from those of the training data (covariate shift). Here "
            "`batches` holds new data."
        ),
        test='loss["eval"] > 1.5 * loss["eval_recomputed"]',
        remedy=(
            "Recompute the statistics on new inputs, if their labels have about the same frequencies as in training."
        ),
        section="chapters/06_perils.ipynb#different-data-at-inference",
    ),
    "predictions-change-the-model": Advice(
        group="batch",
        symptom=(
            "The prediction for an image changes after other predictions, or a teacher (distillation) or a loss "
            "network changes, although nothing is trained: no optimiser, no gradient, `requires_grad=False` or "
            "`torch.no_grad()`"
        ),
        cause=(
            "Each forward pass in train mode updates the running averages (`running_mean`), with or without gradients. "
            "So predictions in train mode change what the model predicts in eval mode."
        ),
        test="any(bn.training and bn.running_mean is not None for bn in bns)",
        remedy="Call `model.eval()` before predicting, and load the running averages again from the checkpoint.",
        section="chapters/06_perils.ipynb#predictions-in-train-mode",
    ),
    "slices-on-mps": Advice(
        group="batch",
        symptom=(
            "On Apple silicon (MPS), batch norm gives wrong outputs or gradients, other than on the CPU, or training "
            "diverges or stops: the input is a slice of a larger tensor, permuted or in `channels_last`"
        ),
        cause=(
            "MPS had bugs with inputs that do not lie in memory as one plain block. PyTorch's public issues report "
            "wrong outputs for slices (2024), and wrong gradients or a crash for permuted or `channels_last` inputs "
            "(2024 to 2026). This book did not reproduce them. Here `result` computes an output or a gradient from "
            "`values`, the layer's input."
        ),
        test=(
            "not torch.allclose(result(values), result(values.clone(memory_format=torch.contiguous_format)), atol=1e-3)"
        ),
        remedy=(
            "Pass a copy to the layer: `x.clone(memory_format=torch.contiguous_format)`. For a slice such as `x[5:]`, "
            "`contiguous()` is not enough, because it returns the slice itself. Upgrade PyTorch, and compare with the "
            "CPU again."
        ),
        section="chapters/torch_parts.ipynb#what-was-not-measured",
    ),
    "test-time-adaptation": Advice(
        group="batch",
        symptom=(
            "Test-time adaptation (TENT) makes predictions worse from the beginning, or they collapse to one class"
        ),
        cause=(
            "The batches are small, or hold only a few classes (label shift), so their statistics are not those of "
            "the training data."
        ),
        test="F.cross_entropy(model.train()(x), y) > 1.5 * F.cross_entropy(model.eval()(x), y)",
        remedy=(
            "Adapt only if each batch has the class proportions of training. In small batches, if some of the images "
            "may look like those of training, average the statistics of the batch with those of training."
        ),
        section="chapters/06_perils.ipynb#test-time-adaptation",
    ),
    "small-gamma": Advice(
        group="training",
        symptom="A deep network learns nothing if gamma starts small, such as 0.001",
        cause=(
            "The signal fades from layer to layer, because `eps` is larger than the variances. With PyTorch's "
            "initialisation, gamma must be above about 3 times the square root of `eps`."
        ),
        test="all(bn.weight.abs().max() < 3 * bn.eps**0.5 for bn in bns)",
        remedy="Start with gamma = 1. Use a smaller gamma only at the end of residual branches.",
        section="chapters/07_why_is_my_bn_failing.ipynb#gamma-is-zero",
    ),
    "small-last-batch": Advice(
        group="training",
        symptom="The training loss jumps (spikes) at the last batch of each epoch",
        cause=(
            "The last batch is incomplete and has only a few samples, so its statistics are noisy, and its loss in "
            "train mode is high. This batch also enters the running averages with full weight."
        ),
        test="min(len(x) for x, y in batches) < 8",
        remedy="Drop the incomplete batch: `DataLoader(drop_last=True)`, or choose a batch size that leaves no rest.",
        section="chapters/07_why_is_my_bn_failing.ipynb#small-batches",
    ),
    "norm-at-the-output": Advice(
        group="training",
        symptom="Regression with batch norm behind the last layer (at the output) predicts badly",
        cause=(
            "BN gives the outputs of every batch the same mean and the same variance. So in train mode the network "
            "cannot predict larger targets for one batch than for another."
        ),
        test="isinstance([m for m in model.modules() if not [*m.children()]][-1], nn.modules.batchnorm._BatchNorm)",
        remedy="Leave out BN behind the last layer, and standardise the targets with their mean and standard deviation "
        "in the training set.",
        section="chapters/01_the_formula.ipynb#forward",
    ),
    "exported-in-train-mode": Advice(
        group="after",
        symptom=(
            "The exported model (TorchScript, torch.export, ONNX, and TFLite or TensorRT made from it) gives other "
            "(wrong, different) outputs than the PyTorch model, or `eval()` is refused"
        ),
        cause=(
            "The model was traced or exported in train mode (ONNX: `training=TrainingMode.TRAINING`). Or the exported "
            "model is right, and PyTorch's own outputs "
            "were computed in train mode: by default, `torch.onnx.export` writes BN in eval mode, also if the model "
            "is in train mode. Here `exported` is the exported model."
        ),
        test="not torch.allclose(exported(x), model.eval()(x), atol=1e-3)",
        remedy=(
            "Call `model.eval()` before you export and before you compare. If the test is true, export again. If it is "
            "false, the exported model is right."
        ),
        section="chapters/06_perils.ipynb#stuck-in-train-mode",
    ),
    "exported-without-statistics": Advice(
        group="after",
        symptom=(
            "The exported ONNX model has batch norm in training mode, although `eval()` was called before: “Training "
            "mode does not support BN opset 14 (or higher) yet” (ONNX Runtime), “Input mean is required for op "
            "batch_norm” (Core ML)"
        ),
        cause=(
            "The layers keep no running averages (`track_running_stats=False`), so they use the statistics of the "
            "batch in eval mode, too."
        ),
        test="any(bn.running_mean is None for bn in bns)",
        remedy=(
            "Build the layers with `track_running_stats=True`, load the weights with `strict=False`, compute the "
            "averages with `torch.optim.swa_utils.update_bn(batches, model)`, and export again."
        ),
        section="chapters/06_perils.ipynb#stuck-in-train-mode",
    ),
    "checkpoint-without-buffers": Advice(
        group="after",
        symptom=(
            "Validation accuracy is good when I save the checkpoint and bad (drops) after I load it or resume the "
            "training"
        ),
        cause=(
            "The checkpoint lacks the running averages, because only the parameters were saved, or `strict=False` "
            "hid that keys are missing. Here `checkpoint` is the loaded dictionary."
        ),
        test="not model.state_dict().keys() <= checkpoint.keys()",
        remedy=(
            "Save `model.state_dict()`, which has the buffers, and load it with `strict=True`. Register statistics of"
            " your own layers as buffers."
        ),
        section="chapters/01_the_formula.ipynb#exercise-3-find-the-bug",
    ),
    "sampler-without-set-epoch": Advice(
        group="devices",
        symptom=(
            "With DistributedSampler the training loss is lower than with one GPU, and the validation loss is worse"
        ),
        cause=(
            "`set_epoch` is never called, so each epoch has the same batches. Here `loader` is the DataLoader after the"
            " second epoch."
        ),
        test="loader.sampler.epoch == 0",
        remedy="Call `loader.sampler.set_epoch(epoch)` at the beginning of each epoch.",
        section="chapters/07_why_is_my_bn_failing.ipynb#batches-that-are-never-reshuffled",
    ),
    "statistics-per-process": Advice(
        group="devices",
        symptom=(
            "DistributedDataParallel (DDP) gives a different validation accuracy on each rank, or the checkpoint of "
            "rank 0 is bad"
        ),
        cause=(
            "At the beginning of the forward pass of each training step, DDP copies the running averages of process 0 "
            "to all other processes, and then each process adds its own batch. So the averages describe the data of "
            "process 0; with `nn.DataParallel`, those of the first GPU. Here `states` holds the `state_dict` of each "
            "rank."
        ),
        test="any(not torch.equal(states[0][key], states[1][key]) for key in states[0])",
        remedy="Average the buffers over the processes before you evaluate or save, or use SyncBatchNorm.",
        section="chapters/10_many_machines.ipynb#whose-statistics",
    ),
    "small-batch-per-device": Advice(
        group="devices",
        symptom=(
            "Accuracy drops with more GPUs: 8 GPUs are worse than 1 at the same global batch size (DataParallel, DDP, "
            "Keras's MirroredStrategy)"
        ),
        cause=(
            "Each device normalises by its own samples, which are fewer than before. Here `x` is the batch of one "
            "device. If that batch is as large as before, BN is not the cause."
        ),
        test="len(x) < 16",
        remedy=(
            "Use SyncBatchNorm (`torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)` with DDP; Keras on TensorFlow: "
            "`BatchNormalization(synchronized=True)`), or a norm that does not depend on the batch."
        ),
        section="chapters/10_many_machines.ipynb#joining-the-batches",
    ),
    "sync-norm-hangs": Advice(
        group="devices",
        symptom="With SyncBatchNorm, training hangs (it is stuck, a deadlock) without an error",
        cause=(
            "Every SyncBatchNorm layer waits for all processes, and one of them does not call it: it has fewer "
            "batches, skips a batch, or takes another branch. With `nn.DataParallel` the cause is another: see the "
            "case about it. Here `lengths` holds the number of batches of each process."
        ),
        test="len(set(lengths)) > 1",
        remedy=(
            "Give all processes the same number of batches (DistributedSampler does), and let all of them call the "
            "same layers in the same order in each step."
        ),
        section="chapters/10_many_machines.ipynb#joining-the-batches",
    ),
    "sync-norm-in-data-parallel": Advice(
        group="devices",
        symptom=(
            "With `nn.DataParallel` and synchronised batch norm, training sticks (hangs) and never starts, without an "
            "error, or the batch norm is not synchronised"
        ),
        cause=(
            "PyTorch's SyncBatchNorm needs DistributedDataParallel (DDP), with one process per GPU. `nn.DataParallel` "
            "is a single process, in which SyncBatchNorm computes what BatchNorm does. Layers of the package "
            "Synchronized-BatchNorm-PyTorch hang if the model was converted after it was wrapped, according to the "
            "package's issues. Here `wrapped` is the wrapped model."
        ),
        test="isinstance(wrapped, nn.DataParallel)",
        remedy=(
            "Use DDP with one process per GPU: call `torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)` first, then "
            "wrap the model. With the package, call its `convert_model(model)` first, then wrap the model in its "
            "`DataParallelWithCallback`."
        ),
        section="chapters/10_many_machines.ipynb#joining-the-batches",
    ),
    "averaged-parameters": Advice(
        group="devices",
        symptom=(
            "Federated averaging (FedAvg): each client's model is good, the averaged model is bad. Or the server stops "
            "because a buffer is an integer (int64, float32)"
        ),
        cause=(
            "Only `parameters()` were averaged, and the running averages are buffers. So the averaged model has those "
            "of another model, or none. The counter of batches, "
            "`num_batches_tracked`, is a buffer, too, and an integer. Here `model` is the averaged model."
        ),
        test='loss["eval"] > 1.5 * loss["eval_recomputed"]',
        remedy=(
            "Average the floating-point numbers of the whole `state_dict()`, or recompute the statistics: "
            "`torch.optim.swa_utils.update_bn(batches, model)`."
        ),
        section="chapters/10_many_machines.ipynb#local-steps",
    ),
    "federated-clients": Advice(
        group="devices",
        symptom=(
            "Federated learning (FedAvg) with non-iid clients is bad with batch norm: each client holds only some "
            "classes"
        ),
        cause="Each client normalises by the statistics of its own classes. Here `batches` are those of one client.",
        test="len(torch.cat([y for x, y in batches]).unique()) < model(x).shape[1]",
        remedy=(
            "If the skew is moderate, keep BN. If it is extreme, average often, and use GroupNorm or freeze the "
            "averaged statistics partway (FixBN)."
        ),
        section="chapters/10_many_machines.ipynb#local-steps",
    ),
}
"""Causes that the doctor does not look for, by a short name."""

IN_TRAINING_CODE: dict[str, Advice] = {
    "fine-tuning": Advice(
        group="after",
        symptom=(
            "A pretrained network gets worse when I fine-tune it with batch norm unfrozen "
            "(`fine_tune_batch_norm=True`), in tiny batches (detection, segmentation), or "
            "torchvision's `fasterrcnn_resnet50_fpn_v2` is worse than v1"
        ),
        cause=(
            "In train mode the network is trained on the noise of the statistics of one or two images. In torchvision, "
            "v1 freezes the BN layers of its pretrained backbone (`FrozenBatchNorm2d`), and v2 does not."
        ),
        test="any(bn.training for bn in bns) and len(x) < 4",
        remedy=(
            "Re-estimate the statistics with `torch.optim.swa_utils.update_bn(batches, model)`, then freeze BN: call "
            "`eval()` on its layers after each `model.train()` (Keras: `layer.trainable = False`), or replace them "
            "by `FrozenBatchNorm2d` with the same eps. In larger batches, train as usual."
        ),
        section="chapters/11_training_code.ipynb#should-i-freeze-batch-norm-when-i-fine-tune",
    ),
    "folded": Advice(
        group="after",
        symptom="Accuracy drops, or the outputs differ, after BN was folded (fused) into the convolutions",
        cause=(
            "BN was folded before its running averages had settled, or into a convolution behind it that pads with "
            "zeros. Or you compared with train mode: the folded model computes what the original computes in eval "
            "mode. Here `folded` is the new model."
        ),
        test="not torch.allclose(folded(x), model.eval()(x), atol=1e-2)",
        remedy=(
            "Recompute the statistics, call `model.eval()`, fold into the convolution in front, and compare the "
            "outputs."
        ),
        section="chapters/11_training_code.ipynb#folding-batch-norm-into-the-convolution",
    ),
    "quantised": Advice(
        group="after",
        symptom="Accuracy drops after quantisation to int8 or fewer bits, with BN folded (fused) before",
        cause=(
            "Folding gives a channel with a small variance large weights, and with one scale per layer, all other "
            "channels are rounded coarsely. Here `weight` is the weight of a folded layer."
        ),
        test="(top := weight.flatten(1).abs().amax(1)).max() > 50 * top.median()",
        remedy="Quantise with one scale per channel.",
        section="chapters/11_training_code.ipynb#quantised-weights-after-folding",
    ),
}
"""Causes that the doctor does not look for and chapter 11 explains, by a short name."""
