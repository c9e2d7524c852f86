"""Batch norms in an ONNX graph: the nodes BatchNormalization with their initialisers and attributes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bnlib.extras import optional
from bnlib.port.conventions import convention
from bnlib.port.found import Found, Source

FROM_TENSORFLOW = (
    "tf2onnx wrote the file: in Keras 2 the running variance of images is unbiased, in Keras 3 it is biased, which was "
    "taken; batch norms on vectors became multiplications and additions, and are not read"
)
INPUTS = ("weight", "bias", "running_mean", "running_var")


def read_onnx(source: Any) -> Source:
    """Return the batch norms of a model or of its file, in the order of the graph.

    A node without eps has the value of the operator's definition. A node without momentum, such as those of tf2onnx,
    does not say the momentum of the training. The graph does not say which running variance it holds, either. PyTorch
    writes its own into it, the unbiased one; the operator itself computes the biased one.
    """
    onnx = optional("onnx", "reading ONNX models")
    model = onnx.load(str(source)) if isinstance(source, Path) else source
    constants = {each.name: each for each in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    nodes = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    found = [_layer(onnx, node, constants, model.producer_name) for node in nodes]
    return Source(found, True, sorted(constants))


def _layer(onnx: Any, node: Any, constants: dict[str, Any], producer: str) -> Found:
    inputs = dict(zip(INPUTS, node.input[1:5], strict=False))
    name = node.name or _common(list(inputs.values())) or node.output[0]
    unknown = [each for each in inputs.values() if each not in constants]
    if unknown:
        raise ValueError(
            f"the inputs {', '.join(unknown)} of node {name} are not constants of the graph, so it holds no numbers "
            "for them; export the model with its weights as initialisers"
        )
    arrays = {role: onnx.numpy_helper.to_array(constants[each]) for role, each in inputs.items()}
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    own = convention("onnx")
    facts = {"eps": round_float32(attributes.get("epsilon", own.eps)), "channel_axis": 1, "output": node.output[0]}
    if "momentum" in attributes:
        facts["momentum"] = round_float32(attributes["momentum"])
    facts["variance"] = convention("torch").variance if producer == "pytorch" else own.variance
    notes = [FROM_TENSORFLOW] if producer == "tf2onnx" else []
    if attributes.get("training_mode"):
        notes.append("the node is in training mode (training_mode=1): the mode is not carried")
    if not attributes.get("spatial", 1):
        notes.append("the node has statistics per position (spatial=0), which is not batch norm per channel")
    return Found(name, arrays, {role: (each,) for role, each in inputs.items()}, facts, notes)


def round_float32(value: float) -> float:
    """Return the decimal number that a float32 stands for: 0.9 for 0.8999999761581421."""
    return float(f"{value:.7g}")


def _common(names: list[str]) -> str:
    """Return what the inputs' names have in common in front of their last dot."""
    layers = {name.rpartition(".")[0] for name in names}
    return layers.pop() if len(layers) == 1 else ""
