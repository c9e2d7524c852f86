"""Write files that ``bnlib.port`` does not open, and what the line of Python in its error makes of them.

    PYTHONPATH=../.. python port_files_closed.py NAME    paddle, mxnet or mindspore; the environment needs PyTorch too

Two batch norms in a row, as in ``port_files.py``: NAME.ENDING is the framework's own file, NAME.npz what its line
wrote, NAME_answers.npz what the framework answers.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from bnlib import port
from bnlib.port.closed import KNOWN

FILES = Path(__file__).parents[2] / "tests" / "unit" / "port" / "files"
CHANNELS, SIZE = 3, 8


def paddle():
    """Return the two layers and what is done with them, as the other functions do."""
    import paddle

    layers = paddle.nn.Sequential(*(paddle.nn.BatchNorm1D(CHANNELS, momentum=0.8, epsilon=2e-3) for _ in range(2)))
    layers[0].weight.set_value(paddle.to_tensor(np.float32([0.5, 1, 2])))

    def call(x, training):
        (layers.train if training else layers.eval)()
        return layers(paddle.to_tensor(x)).numpy()

    statistics = [each for layer in layers for each in (layer._mean, layer._variance)]
    return call, lambda: [each.numpy() for each in statistics], lambda file: paddle.save(layers.state_dict(), file)


def mxnet():
    """The statistics move in the backward pass."""
    import mxnet

    layers = mxnet.gluon.nn.Sequential()
    for _ in range(2):
        layers.add(mxnet.gluon.nn.BatchNorm(in_channels=CHANNELS, momentum=0.8, epsilon=2e-3))
    layers.initialize()
    layers[0].gamma.set_data(mxnet.nd.array([0.5, 1, 2]))

    def call(x, training):
        with mxnet.autograd.record(train_mode=training):
            y = layers(mxnet.nd.array(x))
        if training:
            y.backward()
        return y.asnumpy()

    statistics = [each for layer in layers for each in (layer.running_mean, layer.running_var)]
    return call, lambda: [each.data().asnumpy() for each in statistics], layers.save_parameters


def mindspore():
    """The same in MindSpore."""
    import mindspore

    mindspore.set_device("CPU")
    layers = mindspore.nn.SequentialCell(
        *(mindspore.nn.BatchNorm1d(CHANNELS, momentum=0.8, eps=2e-3) for _ in range(2))
    )
    layers[0].gamma.set_data(mindspore.Tensor(np.float32([0.5, 1, 2])))

    def call(x, training):
        return layers.set_train(training)(mindspore.Tensor(x)).asnumpy()

    statistics = [each for layer in layers for each in (layer.moving_mean, layer.moving_variance)]
    return call, lambda: [each.asnumpy() for each in statistics], lambda file: mindspore.save_checkpoint(layers, file)


def line_for(file: str, name: str) -> str:
    """Return the line of Python in the error that the file raises."""
    try:
        port.norms(file, name)
    except ValueError as error:
        return str(error).partition("as .npz: ")[2]
    raise AssertionError(f"{file} was opened")


def main() -> None:
    """Train, and write all files."""
    name = sys.argv[1]
    call, statistics, save = {"paddle": paddle, "mxnet": mxnet, "mindspore": mindspore}[name]()
    generator = np.random.default_rng(0)
    scale = np.array([0.05, 0.5, 5.0])
    *some, x, last = [(generator.normal(1, 1, (SIZE, CHANNELS)) * scale).astype(np.float32) for _ in range(8)]
    for each in some:
        call(each, True)
    os.chdir(FILES)
    file = f"{name}{KNOWN[name][0][0]}"
    save(file)
    exec(line_for(file, name))
    y = np.array(call(x, False))
    call(last, True)
    after = {f"after_{i}": np.array(each) for i, each in enumerate(statistics())}
    np.savez(f"{name}_answers.npz", x=x, y=y, last=last, **after)


if __name__ == "__main__":
    main()
