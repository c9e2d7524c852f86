"""Causes in Keras, TensorFlow, Flax and Equinox, or on the way to PyTorch, that ``bnlib.diagnose`` cannot see."""

from __future__ import annotations

from bnlib.doctor.advice_form import FORMULA, PERILS, TRAINING, Advice

CAUSES_IN_OTHER_FRAMEWORKS: dict[str, Advice] = {
    "pretrained-keras-base": Advice(
        group="after",
        symptom=(
            "Keras, transfer learning with a pretrained base (such as ResNet50, `trainable=False`): accuracy in `fit` "
            "is good and in `evaluate` bad (low validation accuracy), or the loss jumps after `base.trainable = True`"
        ),
        cause=(
            "The base's BN layers are not frozen: `fit` normalises with the batch, `evaluate` with the moving "
            "averages. In Keras 3, `base(x, training=False)` in a functional model does not prevent this, because "
            "`fit` overrides the argument. Here `base` is the pretrained part."
        ),
        test='any(layer.trainable for layer in base.layers if type(layer).__name__ == "BatchNormalization")',
        remedy=(
            "After `base.trainable = True`, set `layer.trainable = False` for each BatchNormalization layer of the "
            "base, and compile again. A frozen BN layer runs in inference mode, even with `training=True` (in "
            "TensorFlow 1 it still used the batch)."
        ),
        section=f"{TRAINING}#should-i-freeze-batch-norm-when-i-fine-tune",
    ),
    "keras-defaults": Advice(
        group="after",
        symptom="A model converted from Keras or TensorFlow gives slightly different outputs in PyTorch",
        cause=(
            "The defaults differ: `eps` is 0.001 in Keras and 0.00001 in PyTorch, and Keras's momentum 0.99 is "
            "PyTorch's 0.01."
        ),
        test="any(bn.eps != 1e-3 for bn in bns)",
        remedy="Copy eps as well as the weights and buffers, and set momentum to 1 minus Keras's.",
        section=f"{FORMULA}#two-modes-and-the-averages-between-them",
    ),
    "eps-is-not-in-the-weights": Advice(
        group="after",
        symptom=(
            "A model rebuilt by hand in another language or engine (Rust with candle, C++, ggml, the API of TensorRT) "
            "from the same weights gives other logits, boxes or confidences, also in float32 on the CPU"
        ),
        cause=(
            "`eps` is not in the `state_dict`, so the new code has a number of its own: for example 0.00001, where "
            "the model was trained with 0.001 (BN in YOLOv7) or 10⁻⁶ (RMSNorm in the first LLaMA). Here `eps` is the "
            "number in the new code, `model` is the original."
        ),
        test='any(m.eps != eps for m in model.modules() if hasattr(m, "eps"))',
        remedy=(
            "Read eps from each norm layer (in Transformers also `variance_epsilon`), or from the configuration "
            "(`rms_norm_eps`). If the outputs still differ, compare norm by norm in eval mode: the first norm "
            "whose inputs agree and whose outputs differ has the fault."
        ),
        section=f"{FORMULA}#two-modes-and-the-averages-between-them",
    ),
    "momentum-of-the-other-convention": Advice(
        group="after",
        symptom=(
            "A model converted from PyTorch to Keras is bad in `evaluate`, or gives NaN, once it is trained further; "
            "the momentum of its batch norm is 0.1 or 1"
        ),
        cause=(
            "The two conventions are opposite: momentum is the weight of the new statistics in PyTorch, and that of "
            "the old ones in Keras. With PyTorch's 0.1 in Keras, the moving averages follow the last batch. With 1, "
            "which the converter pytorch2keras wrote according to its issues, they never change. Here `layer` is the "
            "layer in Keras."
        ),
        test="not 0.5 < layer.momentum < 1",
        remedy=(
            "Set Keras's momentum to 1 minus PyTorch's, so to 0.9 for PyTorch's default 0.1, before you compile the "
            "model and train it."
        ),
        section="chapters/frameworks.ipynb#which-momentum-is-mine",
    ),
    "frozen-base-in-tensorflow-one": Advice(
        group="after",
        symptom=(
            "Old Keras or TensorFlow 1, transfer learning: the base is frozen (`trainable=False`), and the accuracy "
            "is good in training and bad in validation, even on the same images"
        ),
        cause=(
            "Before TensorFlow 2, `trainable=False` froze gamma and beta, but `fit` still normalised with the batch, "
            "and `evaluate` with the base's moving averages. Here `in_training` and `in_inference` are the base's "
            "outputs for the same images in learning phases 1 and 0, as arrays."
        ),
        test="abs(in_training - in_inference).max() > 1e-3",
        remedy=(
            "Upgrade to TensorFlow 2, where a frozen BN layer runs in inference mode. Or call "
            "`K.set_learning_phase(0)` before you load the base, which puts the whole model into inference mode. What "
            "this case says of TensorFlow 1 rests on its documentation and Keras's public issues, not on an experiment "
            "of this book."
        ),
        section=f"{TRAINING}#should-i-freeze-batch-norm-when-i-fine-tune",
    ),
    "one-average-for-all-steps": Advice(
        group="eval",
        symptom=(
            "Keras, `TimeDistributed(BatchNormalization())` (video, sequences, time series): the training accuracy is "
            "high and the validation accuracy stays low, or `moving_mean` is still 0"
        ),
        cause=(
            "In Keras 3, the wrapper calls the layer once for each time step. So training normalises each step with "
            "its own statistics, and `predict` normalises all steps with one moving mean. In early Keras 2 (TensorFlow "
            "1.13), public issues report that the moving averages stay at their initial values. Here `wrapped` and "
            "`single` are arrays: the outputs, with `training=True`, of the wrapper, and of its `layer` for the same "
            "input with samples and steps merged into one axis."
        ),
        test="abs(wrapped - single.reshape(wrapped.shape)).max() > 1e-3",
        remedy=(
            "Leave out the wrapper, and train again: with `axis=-1`, the default, `BatchNormalization()` takes videos "
            "and sequences as they are, and normalises each channel over all samples, steps and pixels."
        ),
        section="chapters/frameworks.ipynb#what-does-my-framework-do",
    ),
    "axis-without-name": Advice(
        group="error",
        symptom='Flax or Equinox (JAX): NameError, “unbound axis name: batch”, with `BatchNorm(axis_name="batch")`',
        cause=(
            "With `axis_name`, BN averages its statistics over the devices of `jax.pmap`, or the parts of `jax.vmap`, "
            "whose axis has this name. Outside of them the name does not exist. In eval mode BN does not need it. Here "
            "`layer` is the layer, `axes` holds the names of the axes around the call."
        ),
        test="layer.axis_name not in (None, *axes)",
        remedy=(
            'Call the training step inside `jax.pmap(step, axis_name="batch")` or `jax.vmap(step, axis_name="batch")`. '
            "Equinox's BatchNorm needs the `jax.vmap` over the batch, also on one device. In Flax, on a single device, "
            "leave out `axis_name`: BN normalises over the batch without it. If an old version of Flax stops in "
            "`init`, call `init` in eval mode."
        ),
        section="chapters/10_many_machines.ipynb#joining-the-batches",
    ),
    "immutable-statistics": Advice(
        group="error",
        symptom=(
            "Flax (JAX): ModifyScopeVariableError, “Cannot update variable mean … because collection batch_stats is "
            "immutable”"
        ),
        cause=(
            "In train mode, BN updates its running statistics, the collection `batch_stats`, but `apply` was not told "
            "that this collection may change. Here `mutable` is the argument of `apply`, by default False."
        ),
        test='"batch_stats" not in (mutable or [])',
        remedy=(
            'In training, call `y, new = model.apply(variables, x, mutable=["batch_stats"])`, and keep '
            '`new["batch_stats"]` for the next step. For predictions, use `use_running_average=True`.'
        ),
        section=f"{FORMULA}#two-modes-and-the-averages-between-them",
    ),
    "update-operations-not-run": Advice(
        group="eval",
        symptom=(
            "TensorFlow 1 (`tf.compat.v1`, slim): after training, every moving mean is still 0 and every moving "
            "variance 1, and with `is_training=False`, or in `evaluate` of an Estimator, the results are wrong (random)"
        ),
        cause=(
            "In a graph of TensorFlow 1, the updates of the moving averages are operations of their own, in the "
            "collection `UPDATE_OPS`, and the training step does not depend on them, so they never run. Here `moving` "
            "holds the moving mean and the moving variance of each layer, as arrays."
        ),
        test="all((mean == 0).all() and (variance == 1).all() for mean, variance in moving)",
        remedy=(
            "Create the training step inside `with "
            "tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):` (in slim, "
            "`updates_collections=None` or `slim.learning.create_train_op`), and train again. Keras's `fit` in "
            "TensorFlow 2 updates them by itself."
        ),
        section="chapters/frameworks.ipynb#what-does-my-framework-do",
    ),
    "keras-call-without-training": Advice(
        group="eval",
        symptom=(
            "Keras: BatchNormalization has no effect, `moving_mean` is still 0 and `moving_variance` is still 1 (not "
            "updated) after training, in a custom training loop, in DDPG or other reinforcement learning, or in a "
            "subclassed model"
        ),
        cause=(
            "A call without `training=True` uses the moving averages and does not update them. In Keras 3, `fit` does "
            "the same for a subclassed model whose own `call` has no argument `training`. Here `moving` holds the "
            "moving mean and the moving variance of each layer, as arrays."
        ),
        test="all((mean == 0).all() and (variance == 1).all() for mean, variance in moving)",
        remedy=(
            "In a training loop, call `model(x, training=True)`. In a subclassed model, define `call(self, x, "
            "training=None)`, and pass the argument on: `self.norm(x, training=training)`. If the layer is wrapped in "
            "`TimeDistributed`, see the case about this wrapper."
        ),
        section="chapters/frameworks.ipynb#what-does-my-framework-do",
    ),
    "keras-wrong-axis": Advice(
        group="training",
        symptom=(
            "Keras with `channels_first` (NCHW): BatchNormalization hardly helps, or it has as many weights as the "
            "image has columns (wrong axis)"
        ),
        cause=(
            "BatchNormalization takes the last axis for the channels, whatever the data format is. With "
            "`channels_first` the last axis is the width of the image. Here `layer` is the layer, `values` is its "
            "input."
        ),
        test="layer.moving_mean.shape[0] != values.shape[1]",
        remedy="With `channels_first`, build the layer with `BatchNormalization(axis=1)`.",
        section=f"{FORMULA}#convolutions",
    ),
    "statistics-collection-missing": Advice(
        group="error",
        symptom=(
            "Flax (JAX): ScopeCollectionNotFound, “Tried to access mean from collection batch_stats in /BatchNorm_0 "
            "but the collection is empty”"
        ),
        cause=(
            "`apply` was given the parameters only. BN's running statistics are a collection of their own, "
            "`batch_stats`. Here `variables` is the first argument of `apply`."
        ),
        test='"batch_stats" not in variables',
        remedy=(
            'Call `model.apply({"params": params, "batch_stats": batch_stats}, x)`, and keep both in the training '
            "state."
        ),
        section=f"{FORMULA}#two-modes-and-the-averages-between-them",
    ),
    "statistics-thrown-away": Advice(
        group="eval",
        symptom=(
            "Flax (JAX): the training accuracy is high, but with `use_running_average=True` (evaluation) it is that of "
            "guessing"
        ),
        cause=(
            "The new running statistics were thrown away: `apply` returns them beside the outputs, but the training "
            "state still has the initial ones, with mean 0 and variance 1. Here `means` holds the running means of "
            "the training state."
        ),
        test="not any(mean.any() for mean in means)",
        remedy=(
            'In each step, take them from `y, new = model.apply(variables, x, mutable=["batch_stats"])`, and put '
            '`new["batch_stats"]` into the training state. Inside `jax.value_and_grad`, return them with '
            "`has_aux=True`. In Flax NNX, use `nnx.jit` and `nnx.value_and_grad`, which write them back."
        ),
        section=f"{FORMULA}#two-modes-and-the-averages-between-them",
    ),
    "freeze-false-means-training": Advice(
        group="eval",
        symptom=(
            "Keras, trained from scratch with a BatchNormalization class of a library or of your own that has a switch "
            "such as `freeze=False` (keras-resnet): training is good, validation is terrible"
        ),
        cause=(
            "The class calls the layer with `training=(not freeze)`, so `freeze=False` means `training=True`, also in "
            "validation and in `predict`. Copies of an older keras-resnet do this; version 0.2.0 does not. Here "
            "`network` is the model, and `images` is a batch, as an array."
        ),
        test="abs(network.predict(images)[:1] - network.predict(images[:1])).max() > 1e-3",
        remedy=(
            "Pass on the argument `training` of `call` (`None` by default) if the layer is not frozen, and "
            "`training=False` if it is. The moving averages are then used in validation, so evaluate again."
        ),
        section="chapters/frameworks.ipynb#what-does-my-framework-do",
    ),
    "training-written-into-the-call": Advice(
        group="batch",
        symptom=(
            "Keras: `predict` gives different results for a single image and for the same image in a batch, or better "
            "results with a larger `batch_size`, although the model is trained"
        ),
        cause=(
            "A call of the layer has `training=True` written into it (hard-coded), so `predict` normalises with the "
            "batch, too. This happens in a model with its own `call`, and in Keras 2 in every model; in a functional "
            "model, Keras 3 overrides the argument. In Keras 1, `mode=2` of the layer does the same. Here `network` "
            "is the model, and `images` is a batch, as an array."
        ),
        test="abs(network.predict(images)[:1] - network.predict(images[:1])).max() > 1e-3",
        remedy=(
            "Write `self.norm(x, training=training)` with the argument of `call(self, x, training=None)`, or leave the "
            "argument out (Keras 1: `mode=0`). If the network was trained with it, compare its accuracy again: "
            "`predict` now uses the moving averages."
        ),
        section="chapters/frameworks.ipynb#what-does-my-framework-do",
    ),
    "replicas-keep-their-own-averages": Advice(
        group="devices",
        symptom=(
            "Keras with MirroredStrategy: `evaluate` gives a different result after saving and loading the model than "
            "right after training"
        ),
        cause=(
            "Each replica has moving averages of its own, from its part of the batch. In memory, each replica "
            "evaluates with its own, and Keras 3 saves those of the first replica. Here `replicas` holds the moving "
            "mean of one layer on each replica, as arrays."
        ),
        test="any(abs(each - replicas[0]).max() > 1e-3 for each in replicas)",
        remedy=(
            "Build the layers with `BatchNormalization(synchronized=True)`, or evaluate the saved model. Shuffle the "
            "data, so that all replicas see similar samples."
        ),
        section="chapters/10_many_machines.ipynb#whose-statistics",
    ),
    "converted-in-training-mode": Advice(
        group="after",
        symptom=(
            "A TFLite model or a frozen graph (`.pb`), converted from Keras or TensorFlow, gives completely wrong "
            "results with batch norm, and right ones without BN, or it stops with “was passed float from …/gamma:0 "
            "incompatible with expected resource”"
        ),
        cause=(
            "The graph was built for training (`training=True`, `is_training=True` or learning phase 1), so its BN "
            "uses the statistics of the batch. Here `network` is the model, and `converted` holds the outputs of the "
            "new file for `images`, as an array."
        ),
        test="abs(converted - network.predict(images)).max() > 1e-3",
        remedy=(
            "Convert the graph of inference: `tf.lite.TFLiteConverter.from_keras_model(model)`, or trace "
            "`model(x, training=False)`. In TensorFlow 1, build the graph again with `is_training=False` (Keras: "
            "`set_learning_phase(0)` before the model is loaded), restore the checkpoint, and freeze that graph."
        ),
        section=f"{PERILS}#stuck-in-train-mode",
    ),
    "converted-in-the-wrong-order": Advice(
        group="after",
        symptom=(
            "Weights converted by hand (Keras, TensorFlow, Caffe, Darknet or MXNet to PyTorch) give completely wrong "
            "outputs: gamma, beta, mean and variance in the wrong order"
        ),
        cause=(
            "Frameworks store the four arrays in different orders or forms. Keras: gamma, beta, mean, variance. "
            "Darknet (YOLO): beta, gamma, mean, variance. Caffe: mean, variance and a factor that divides both; gamma "
            "and beta are in the Scale layer. MXNet: with `fix_gamma=True`, gamma is 1, whatever the file says. Here "
            "`values` is the input of `layer`, and `expected` is the output of the original layer."
        ),
        test="not torch.allclose(layer.eval()(values), expected, atol=1e-3)",
        remedy=(
            "Assign the arrays by name: `weight` is gamma, `bias` is beta. Store the variance, not its root, and copy "
            "eps. `bnlib.port` reads the files of several frameworks."
        ),
        section="chapters/frameworks.ipynb#port-a-layer",
    ),
    "equinox-in-mode-ema": Advice(
        group="training",
        symptom=(
            "Equinox (JAX): training with BatchNorm is unstable or worse than without, and it depends strongly on "
            "the momentum"
        ),
        cause=(
            'By default (`mode="ema"`), Equinox normalises with running averages in training, too, so the layer '
            "computes something other than batch norm. Here `layer` is the layer."
        ),
        test='layer.mode == "ema"',
        remedy='Build the layer with `eqx.nn.BatchNorm(..., mode="batch")`.',
        section="chapters/frameworks.ipynb#why-is-my-ported-network-worse",
    ),
}
"""Causes in other frameworks, by a short name."""
