"""Carry the state of batch norms between frameworks, in the right convention.

Keras, Flax, Equinox, Haiku, ONNX, MLX, PaddlePaddle, MindSpore, tinygrad, MXNet, Chainer and PyTorch agree on the
formula. They differ in what momentum weighs, in eps, in the stored variance, in names and in the axis of the channels.
``norms`` and ``read`` bring a layer's numbers into one convention, ``load`` and ``write`` take them to another
framework. The ``notes`` of a result say what was assumed and what the other framework cannot hold.

The conventions are measured: Appendix C, ``data/frameworks.json``. The files of Keras, safetensors and ONNX need the
extra ``port``; no framework is needed to read them.
"""

from bnlib.port.conventions import FRAMEWORKS
from bnlib.port.loading import load, values_per_channel
from bnlib.port.reading import Norms, norms, read
from bnlib.port.state import BatchNormState
from bnlib.port.writing import Written, write

__all__ = ["FRAMEWORKS", "BatchNormState", "Norms", "Written", "load", "norms", "read", "values_per_channel", "write"]
