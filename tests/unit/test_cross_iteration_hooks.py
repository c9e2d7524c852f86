"""Cross-Iteration BN around a layer with hooks: its statistics are those of the weights and inputs that are used."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import bnlib

KEPT = torch.arange(20).view(4, 5) % 3 > 0


class Masked(nn.Module):
    def forward(self, weight):
        return weight * KEPT


class Doubled(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(2 * x)


def train(model, x):
    outputs, optimiser = [], torch.optim.SGD(model.parameters(), 0.1)
    for batch in x:
        outputs.append(model(batch))
        optimiser.zero_grad()
        outputs[-1].pow(3).mean().backward()
        optimiser.step()
    return torch.stack(outputs)


CASES = {
    "pruning": (lambda layer: prune.custom_from_mask(layer, "weight", KEPT),
                lambda cbn: parametrize.register_parametrization(cbn.layer, "weight", Masked())),
    "weight_norm": (nn.utils.weight_norm, lambda cbn: parametrizations.weight_norm(cbn.layer)),
    "input": (lambda layer: layer.register_forward_pre_hook(lambda module, args: (2 * args[0],)), Doubled),
    "nothing": (lambda layer: (layer.register_forward_hook(lambda *args: None),
                               layer.register_full_backward_hook(lambda *args: None)), lambda cbn: None),
}  # fmt: skip


@pytest.mark.filterwarnings(
    "ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning", "ignore:Full backward hook"
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute of a Tensor")  # of torch.compile
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("case", CASES)
def test_hooks_of_the_layer_give_the_numbers_of_the_same_without_hooks(case, compiled):
    add_hooks, change = CASES[case]
    layers = []
    for _ in range(2):
        torch.manual_seed(1)
        layers.append(bnlib.CrossIterationBatchNorm(nn.Linear(5, 4), window=3))
    ours, theirs = layers
    add_hooks(ours.layer)
    changed = change(theirs)
    theirs = changed if case == "input" else theirs
    if compiled:
        torch.compiler.reset()
        ours = torch.compile(ours, backend="eager")
    x = torch.randn(4, 6, 5)
    torch.testing.assert_close(train(ours, x), train(theirs, x))


@pytest.mark.parametrize("hook", [lambda module, args, y: 2 * y, lambda module, args, y: y.mul_(2)])
def test_a_hook_that_changes_the_output_is_refused(hook):
    layer = bnlib.CrossIterationBatchNorm(nn.Linear(5, 4), window=3)
    layer.layer.register_forward_hook(hook)
    with pytest.raises(RuntimeError, match="hooks that do not change its output"):
        layer(torch.randn(6, 5))
    assert "forward" not in vars(layer.layer)
    layer.eval()(torch.randn(6, 5))
