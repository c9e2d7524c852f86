"""The networks of the experiments, one file a family.

Where a builder takes ``norm``, that is None, a name in ``bnlib.NORMS``, an entry of it, or what makes a layer from a
number of channels, such as ``bnlib.BatchNorm``.
"""

from bnlib.models.building import NormLike
from bnlib.models.convolutional import lian_figure_6_cnn, small_cnn, vgg
from bnlib.models.feed_forward import deep_stack, logistic_regression, mlp, three_point_network
from bnlib.models.recurrent import LSTMStack, PerTimeStepNorm, SequenceWiseNorm, lstm_stack
from bnlib.models.residual import BasicBlock, SkipConnection, residual_stack, resnet18

__all__ = [
    "BasicBlock",
    "LSTMStack",
    "NormLike",
    "PerTimeStepNorm",
    "SequenceWiseNorm",
    "SkipConnection",
    "deep_stack",
    "lian_figure_6_cnn",
    "logistic_regression",
    "lstm_stack",
    "mlp",
    "residual_stack",
    "resnet18",
    "small_cnn",
    "three_point_network",
    "vgg",
]

# A run of ``bnlib.sweep`` is found again by the name of its builder, which is not to depend on the file it is in.
for _builder in (
    deep_stack,
    lian_figure_6_cnn,
    logistic_regression,
    lstm_stack,
    mlp,
    residual_stack,
    resnet18,
    small_cnn,
    three_point_network,
    vgg,
):
    _builder.__module__ = __name__
