"""Five small networks for the digits, trained in Keras, in Flax, and in PyTorch for ONNX, and PyTorch's copies of them.

Each has ``framework`` and ``source``, what ``port.norms`` reads, and ``settings``, what the source does not say;
``evaluate(x)``; ``step(x)``, one batch in training mode, which moves the statistics alone; ``copy()``, a network of
PyTorch with the weights of the other layers and batch norms that are as PyTorch makes them; and ``fill(states)``, which
takes statistics back.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import ClassVar

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import keras
import numpy as np
import onnx
import onnxruntime
import optax
import torch
from flax import linen, nnx
from torch import nn

from bnlib import datasets, port, training

DATA = datasets.load("digits")
TRAIN_X, TRAIN_Y = DATA.train_x.numpy(), DATA.train_y.numpy()
FOLDER = Path(tempfile.mkdtemp())
CHANNELS, HIDDEN, CLASSES, STEPS, BATCH = 8, 32, 10, 300, 64


def convolutional(norm=nn.BatchNorm2d) -> nn.Sequential:
    """Return two convolutions of as many channels as the images have rows, with batch norm behind each."""
    layers = [nn.Conv2d(1, CHANNELS, 3, padding=1), norm(CHANNELS), nn.ReLU()]
    layers += [nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), norm(CHANNELS), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, CLASSES))


def connected(norm=nn.BatchNorm1d) -> nn.Sequential:
    """Return two fully connected layers with batch norm behind each."""
    layers = [nn.Flatten(), nn.Linear(64, HIDDEN), norm(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), norm(HIDDEN)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(HIDDEN, CLASSES))


class OnRows(nn.BatchNorm2d):
    """A batch norm that gets images with channels last, and so normalises each row of pixels in place of a channel."""

    def forward(self, input):
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def on_rows(model: nn.Sequential) -> nn.Sequential:
    """Put channels-last images before the batch norms; PyTorch raises no error, because there are as many rows."""
    for layer in model:
        if isinstance(layer, nn.BatchNorm2d):
            layer.__class__ = OnRows
    return model


def with_weights(model: nn.Sequential, weights: list[tuple[np.ndarray, np.ndarray]]) -> nn.Sequential:
    """Set kernels (height, width, in, out) or (in, out) and biases, as Keras and Flax have them."""
    layers = [layer for layer in model if isinstance(layer, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for layer, (kernel, bias) in zip(layers, weights, strict=True):
            order = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
            layer.weight.copy_(torch.from_numpy(np.array(kernel.transpose(order))))
            layer.bias.copy_(torch.from_numpy(np.array(bias)))
    return model


def channels_last(x: np.ndarray) -> np.ndarray:
    return x.transpose(0, 2, 3, 1)


def minibatches(seed: int = 0):
    """Yield as many batches as a training has steps."""
    generator = np.random.default_rng(seed)
    for _ in range(STEPS):
        rows = generator.choice(len(TRAIN_X), BATCH, replace=False)
        yield TRAIN_X[rows], TRAIN_Y[rows]


class InKeras:
    """A convolutional network, of which a ``.keras`` file is read."""

    framework, title, ending = "keras", "Keras, convolutions, from .keras", ".keras"
    images, settings = True, {}

    def __init__(self) -> None:
        keras.utils.set_random_seed(0)
        self.model = self.layers()
        self.model.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        for x, y in minibatches():
            self.model.train_on_batch(self.given(x), y)

    def layers(self):
        conv = [keras.layers.Conv2D(CHANNELS, 3, padding="same") for _ in range(2)]
        norms = [keras.layers.BatchNormalization(momentum=0.9) for _ in range(2)]
        relu, pool = keras.layers.ReLU(), keras.layers.GlobalAveragePooling2D()
        middle = [conv[0], norms[0], relu, conv[1], norms[1], keras.layers.ReLU(), pool]
        return keras.Sequential([keras.Input((8, 8, 1)), *middle, keras.layers.Dense(CLASSES)])

    def given(self, x):
        return channels_last(x) if self.images else x.reshape(len(x), -1)

    @property
    def source(self) -> Path:
        path = FOLDER / f"network{self.ending}"
        (self.model.save if self.ending == ".keras" else self.model.save_weights)(path)
        return path

    def evaluate(self, x) -> np.ndarray:
        return np.asarray(self.model(self.given(x), training=False))

    def step(self, x) -> None:
        self.model(self.given(x), training=True)

    def copy(self) -> nn.Sequential:
        dense = [layer.get_weights() for layer in self.model.layers if hasattr(layer, "kernel")]
        return with_weights(convolutional() if self.images else connected(), dense)

    def fill(self, states) -> None:
        for layer, state in zip(self.norms(), states.values(), strict=True):
            layer.set_weights(list(port.write(state, "keras").arrays.values()))

    def norms(self) -> list:
        return [layer for layer in self.model.layers if isinstance(layer, keras.layers.BatchNormalization)]


class ConnectedInKeras(InKeras):
    """A fully connected network with Keras's defaults, of which ``.weights.h5`` is read."""

    title, ending, images = "Keras, fully connected, from .weights.h5", ".weights.h5", False

    def layers(self):
        inner = []
        for _ in range(2):
            inner += [keras.layers.Dense(HIDDEN), keras.layers.BatchNormalization(), keras.layers.ReLU()]
        return keras.Sequential([keras.Input((64,)), *inner, keras.layers.Dense(CLASSES)])


class Linen(linen.Module):
    """Convolutions with batch norm, in flax.linen."""

    @linen.compact
    def __call__(self, x, train):
        for _ in range(2):
            x = linen.Conv(CHANNELS, (3, 3))(x)
            x = linen.relu(linen.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return linen.Dense(CLASSES)(x.mean((1, 2)))


def loss_of(logits, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


class InLinen:
    """A convolutional network, whose variables are read."""

    framework, title = "flax", "Flax (linen), convolutions, from its variables"
    settings: ClassVar = {"momentum": 0.9}
    images = True

    def __init__(self) -> None:
        self.model, optimiser = Linen(), optax.adam(1e-2)
        self.source = self.model.init(jax.random.key(0), channels_last(TRAIN_X[:1]), False)
        state = optimiser.init(self.source["params"])

        @jax.jit
        def update(variables, state, x, y):
            def loss(params):
                logits, moved = self.model.apply({**variables, "params": params}, x, True, mutable=["batch_stats"])
                return loss_of(logits, y), moved

            gradient, moved = jax.grad(loss, has_aux=True)(variables["params"])
            change, state = optimiser.update(gradient, state)
            return {"params": optax.apply_updates(variables["params"], change), **moved}, state

        for x, y in minibatches():
            self.source, state = update(self.source, state, channels_last(x), y)
        self._train = jax.jit(lambda v, x: self.model.apply(v, x, True, mutable=["batch_stats"])[1])
        for x, _ in minibatches(seed=1):  # the statistics follow the weights, which rest
            self.step(x)

    def evaluate(self, x) -> np.ndarray:
        return np.asarray(self.model.apply(self.source, channels_last(x), False))

    def step(self, x) -> None:
        self.source = {**self.source, **self._train(self.source, channels_last(x))}

    def copy(self) -> nn.Sequential:
        names = ("Conv_0", "Conv_1", "Dense_0")
        weights = [(self.source["params"][name]["kernel"], self.source["params"][name]["bias"]) for name in names]
        return with_weights(convolutional(), [tuple(map(np.asarray, each)) for each in weights])

    def fill(self, states) -> None:
        self.source = port.write(states, "flax", into=self.source).arrays


class Nnx(nnx.Module):
    """Fully connected layers with batch norm, in flax.nnx."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.first, self.second = nnx.Linear(64, HIDDEN, rngs=rngs), nnx.Linear(HIDDEN, HIDDEN, rngs=rngs)
        self.first_norm, self.second_norm = nnx.BatchNorm(HIDDEN, rngs=rngs), nnx.BatchNorm(HIDDEN, rngs=rngs)
        self.last = nnx.Linear(HIDDEN, CLASSES, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.first_norm(self.first(x)))
        return self.last(nnx.relu(self.second_norm(self.second(x))))


class InNnx:
    """A fully connected network with Flax's defaults, which is read in memory."""

    framework, title = "nnx", "Flax (nnx), fully connected, from its module"
    images, settings = False, {}

    def __init__(self) -> None:
        self.source = Nnx()
        optimiser = nnx.Optimizer(self.source, optax.adam(1e-2), wrt=nnx.Param)

        @nnx.jit
        def update(model, optimiser, x, y):
            optimiser.update(model, nnx.grad(lambda each: loss_of(each(x), y))(model))

        for x, y in minibatches():
            update(self.source, optimiser, x.reshape(len(x), -1), y)

    def evaluate(self, x) -> np.ndarray:
        self.source.eval()
        return np.asarray(self.source(jnp.asarray(x.reshape(len(x), -1))))

    def step(self, x) -> None:
        self.source.train()
        self.source(jnp.asarray(x.reshape(len(x), -1)))

    def copy(self) -> nn.Sequential:
        layers = (self.source.first, self.source.second, self.source.last)
        return with_weights(
            connected(), [tuple(map(np.asarray, (each.kernel[...], each.bias[...]))) for each in layers]
        )

    def fill(self, states) -> None:
        state = nnx.state(self.source)
        named = {name: each for name, each in states.items()}
        filled = port.write(named, "nnx", into=state, names=dict(zip(named, port.norms(state, "nnx"), strict=True)))
        nnx.update(self.source, filled.arrays)


class InOnnx:
    """A convolutional network, trained and exported with PyTorch, whose graph is read and run by onnxruntime.

    Its variances are made the biased ones, which onnxruntime computes when it goes on.
    """

    framework, title = "onnx", "ONNX, convolutions, from .onnx"
    images, settings = True, {}

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.trained = convolutional(lambda count: nn.BatchNorm2d(count, eps=1e-3, momentum=0.05))
        training.fit(self.trained, "digits", batch_size=BATCH, lr=0.2, epochs=15, progress=False)
        for x, _ in minibatches(seed=1):
            self.trained.train()(torch.from_numpy(x))
        self.source = FOLDER / "network.onnx"
        self.trained.eval()
        given = (torch.zeros(2, 1, 8, 8),)
        shapes = ({0: torch.export.Dim.DYNAMIC},)
        torch.onnx.export(
            self.trained, given, self.source, dynamo=True, dynamic_shapes=shapes, optimize=False, external_data=False
        )

        states = port.norms(self.source, "onnx")
        self.fill({name: state.with_variance("biased", BATCH * 64) for name, state in states.items()})

    def evaluate(self, x) -> np.ndarray:
        session = onnxruntime.InferenceSession(self.source, providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: x})[0]

    def step(self, x) -> None:
        """Let onnxruntime compute the new statistics: the nodes in training mode return them."""
        model = onnx.load(self.source)
        nodes = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
        places = []
        for number, node in enumerate(nodes):
            kept = [each for each in node.attribute if each.name != "training_mode"]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute("training_mode", 1)])
            del node.output[1:]
            node.output.extend([f"mean_{number}", f"variance_{number}"])
            places += list(node.input[3:5])
            for name in node.output[1:]:
                model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        outputs = session.run(None, {session.get_inputs()[0].name: x})[1:]
        moved = onnx.load(self.source)
        constants = {each.name: each for each in moved.graph.initializer}
        for name, value in zip(places, outputs, strict=True):
            constants[name].CopyFrom(onnx.numpy_helper.from_array(value, name))
        onnx.save(moved, self.source)

    def copy(self) -> nn.Sequential:
        model = convolutional()
        weights = {name: each for name, each in self.trained.state_dict().items() if each.ndim > 1 or "8." in name}
        weights |= {f"{name}.bias": self.trained[name].bias for name in (0, 3)}
        model.load_state_dict(weights, strict=False)
        return model

    def fill(self, states) -> None:
        model = onnx.load(self.source)
        model.producer_name = "bnlib"
        onnx.save(port.write(states, "onnx", into=model).arrays, self.source)


NETWORKS = {"keras": InKeras, "keras-connected": ConnectedInKeras, "flax": InLinen, "nnx": InNnx, "onnx": InOnnx}
