"""Networks for the experiments, one file per family.

The argument ``norm`` of the builders is a name in ``bnlib.NORMS``, an entry of it, a callable that takes the number of
channels and returns a layer, such as ``bnlib.BatchNorm``, or None for no normalisation. Behind a norm that contains its
activation (FRN, EvoNorm-S0) there is no other.
"""

from bnlib.models.building import NormLike
from bnlib.models.convolutional import lian_figure_6_cnn, small_cnn, vgg
from bnlib.models.feed_forward import deep_stack, logistic_regression, mlp, three_point_network
from bnlib.models.normaliser_free import ScaledReLU, ScaledSkipConnection, normaliser_free_stack
from bnlib.models.recurrent import LSTMStack, PerTimeStepNorm, SequenceWiseNorm, lstm_stack
from bnlib.models.residual import BasicBlock, SkipConnection, residual_stack, resnet18

__all__ = [
    "BasicBlock",
    "LSTMStack",
    "NormLike",
    "PerTimeStepNorm",
    "ScaledReLU",
    "ScaledSkipConnection",
    "SequenceWiseNorm",
    "SkipConnection",
    "deep_stack",
    "lian_figure_6_cnn",
    "logistic_regression",
    "lstm_stack",
    "mlp",
    "normaliser_free_stack",
    "residual_stack",
    "resnet18",
    "small_cnn",
    "three_point_network",
    "vgg",
]

# The cache of ``bnlib.sweep`` identifies a run by the name of its builder, which must not depend on the builder's file.
for _builder in (
    deep_stack,
    lian_figure_6_cnn,
    logistic_regression,
    lstm_stack,
    mlp,
    normaliser_free_stack,
    residual_stack,
    resnet18,
    small_cnn,
    three_point_network,
    vgg,
):
    _builder.__module__ = __name__
