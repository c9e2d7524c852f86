"""Convert model families of timm and torchvision to other norms and back: do they compute the same, bit for bit?

The networks have random weights and the statistics of one batch, and in a tenth of the channels a variance near
``eps``, as in networks ported from TensorFlow. For each family and each norm: the largest difference of an output in
eval mode after the conversion, relative to the largest output; whether a training step runs; and whether the way back
restores every number, class and attribute.
"""

import copy
import sys
import warnings

import torch
from torch import nn

import bnlib

TIMM = (
    "resnet18 resnext50_32x4d densenet121 mobilenetv2_050 mobilenetv3_small_050 efficientnet_b0 efficientnet_lite0 "
    "regnety_002 rexnet_100 ghostnet_050 hrnet_w18_small dla34 ese_vovnet19b_dw cspresnet50 cspdarknet53 inception_v4 "
    "xception41 levit_128s maxvit_rmlp_pico_rw_256 coatnet_pico_rw_224 efficientvit_b0 efficientvit_m0 mobileone_s0 "
    "repvgg_a0 fastvit_t8 mobilevit_xxs mobilenetv4_conv_small lcnet_050 hardcorenas_a selecsls42b "
    "skresnet18 dpn48b res2net50_26w_4s resnest14d"
).split()
TORCHVISION = "vgg11_bn googlenet shufflenet_v2_x0_5 mnasnet0_5 r3d_18 deeplabv3_mobilenet_v3_large".split()
SIZES = {"levit_128s": 224, "maxvit_rmlp_pico_rw_256": 256, "coatnet_pico_rw_224": 224, "efficientvit_m0": 224}
SIZES |= {"inception_v4": 160, "googlenet": 96}
NORMS = (bnlib.FullNorm, bnlib.BatchRenorm)


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Return the model in eval mode, with numbers that are not the initial ones, and an input."""
    size = SIZES.get(name, 64)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    if name in TIMM:
        import timm

        model, shape = timm.create_model(name, num_classes=10), (2, 3, size, size)
    else:
        import torchvision

        maker = torchvision.models.get_model
        model = maker(name, weights=None, **({"weights_backbone": None} if "deeplab" in name else {}))
        shape = (2, 3, 4, size, size) if name == "r3d_18" else (2, 3, size, size)
    x = torch.randn(shape)
    layers = [each for each in model.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for layer in layers:
            layer.weight.uniform_(0.5, 1)
        model.train()(x)
        for layer in layers:
            near = torch.rand(layer.num_features) < 0.1
            layer.running_var[near] = layer.eps * torch.rand(int(near.sum())) * 3
            layer.weight[near] *= layer.eps**0.5
    return model.eval(), x


def output(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the first output as one tensor."""
    with torch.set_grad_enabled(model.training):  # LeViT keeps tensors of its last pass
        y = model(x)
    y = next(iter(y.values())) if isinstance(y, dict) else y
    return y[0] if isinstance(y, tuple) else y


def description(model: nn.Module) -> list:
    """Return the class, the train mode and the plain attributes of each module."""
    return [
        (name, type(part), {key: value for key, value in vars(part).items() if isinstance(value, (int, float, str))})
        for name, part in model.named_modules()
    ]


def row(name: str, built: tuple[nn.Module, torch.Tensor], norm: type[nn.Module]) -> tuple[str, ...]:
    """Return the cells of one family and one norm."""
    model, x = copy.deepcopy(built)
    before, state, parts = output(model, x), copy.deepcopy(model.state_dict()), description(model)
    layers = sum(isinstance(each, nn.modules.batchnorm._BatchNorm) for each in model.modules())
    try:
        bnlib.convert(model, to=norm)
    except ValueError as error:
        return name, norm.__name__, str(layers), "refused: " + str(error).splitlines()[1].strip(), "", ""
    now = sum(isinstance(each, norm) for each in model.modules())
    difference = ((output(model, x) - before).abs().max() / before.abs().max()).item()
    trained = copy.deepcopy(model).train()
    try:
        output(trained, x).float().square().mean().backward()
        trains = "yes"
    except Exception as error:
        trains = f"{type(error).__name__}: {error}"[:60]
    bnlib.convert(model, to="original")
    there = model.state_dict()
    same = list(there) == list(state) and all(torch.equal(there[key], state[key]) for key in state)
    exact = same and description(model) == parts and torch.equal(output(model, x), before)
    return name, norm.__name__, f"{now} of {layers}", f"{difference:.1e}", trains, "exact" if exact else "DIFFERS"


def print_row(cells: tuple[str, ...], widths: tuple[int, ...]) -> None:
    """Print a line of the table at once, for the whole takes minutes."""
    print("  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)), flush=True)


def main() -> None:
    """Print the table; name families on the command line to try only these."""
    warnings.simplefilter("ignore")
    families = sys.argv[1:] or [*TIMM, *TORCHVISION]
    widths = (max(map(len, families)), 11, 10, 10, 6, 7)
    good = 0
    print_row(("family", "norm", "layers", "difference", "trains", "back"), widths)
    for name in families:
        built = build(name)
        rows = [row(name, built, norm) for norm in NORMS]
        for cells in rows:
            print_row(cells, widths)
        good += all(cells[-1] == "exact" for cells in rows)
    print(f"\n{good} of {len(families)} families convert and come back exactly")


if __name__ == "__main__":
    try:
        import timm  # noqa: F401
        import torchvision  # noqa: F401
    except ImportError as error:
        print(f"not measured: {error}; pip install timm torchvision")
    else:
        main()
