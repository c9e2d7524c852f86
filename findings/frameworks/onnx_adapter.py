"""ONNX: the operator BatchNormalization, run by what ONNX_ENGINE names: onnxruntime, openvino or reference."""

import os
from functools import cache, partial
from importlib.metadata import version

import numpy as np
import onnx
import protocol
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

ENGINE = os.environ.get("ONNX_ENGINE", "onnxruntime")
PACKAGES = {"onnxruntime": ("onnx", "onnxruntime"), "openvino": ("openvino", "onnx"), "reference": ("onnx",)}
OPSET = 15


def _model(channels: int, training: bool, of_x: int, of_others: int) -> onnx.ModelProto:
    names = ["x", "scale", "bias", "mean", "variance"]
    outputs = ["y", "new_mean", "new_variance"] if training else ["y"]
    node = helper.make_node("BatchNormalization", names, outputs, training_mode=int(training))
    inputs = [helper.make_tensor_value_info("x", of_x, ["N", channels])]
    inputs += [helper.make_tensor_value_info(each, of_others, [channels]) for each in names[1:]]
    results = [
        helper.make_tensor_value_info(each, of_others if each in outputs[1:] else of_x, None) for each in outputs
    ]
    graph = helper.make_graph([node], "norm", inputs, results)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


@cache
def _run(*description: int):
    """Return a function from inputs by name to a list of outputs."""
    model = _model(*description)
    if ENGINE == "reference":
        evaluator = ReferenceEvaluator(model)
        return lambda feeds: evaluator.run(None, feeds)
    if ENGINE == "openvino":
        import openvino

        core = openvino.Core()
        compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU")
        return lambda feeds: list(compiled(feeds).values())
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(None, feeds)


class Layer:
    """See ``protocol``."""

    def __init__(self, channels: int, of_x: int = TensorProto.FLOAT, of_others: int = TensorProto.FLOAT) -> None:
        self.channels, self.types = channels, (of_x, of_others)
        dtype = helper.tensor_dtype_to_np_dtype(of_others)
        one, zero = np.ones(channels, dtype), np.zeros(channels, dtype)
        self.state = {"scale": one, "bias": zero, "mean": zero.copy(), "variance": one.copy()}

    def train(self, x: np.ndarray) -> np.ndarray:
        output, mean, variance = _run(self.channels, True, *self.types)({"x": x, **self.state})
        self.state |= {"mean": np.array(mean), "variance": np.array(variance)}
        return np.array(output)

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return np.array(_run(self.channels, False, *self.types)({"x": x, **self.state})[0])

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        return self.state["mean"], self.state["variance"]


def versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES[ENGINE]} | {"run by": ENGINE}


def _half() -> dict[str, str]:
    def kinds(others: int) -> tuple:
        layer = Layer(1, TensorProto.FLOAT16, others)
        return layer.train(protocol.FOUR.astype(np.float16)).dtype, layer.statistics()[0].dtype

    situations = {"all float16": TensorProto.FLOAT16, "x float16, the others float32": TensorProto.FLOAT}
    return protocol.types({name: partial(kinds, others) for name, others in situations.items()})


def _momentum() -> dict[str, object]:
    attribute = onnx.defs.get_schema("BatchNormalization").attributes["momentum"]
    return {"name": "momentum", "default": protocol.rounded(attribute.default_value.f)}


OTHER = {
    "momentum argument": _momentum,
    "who chooses the start": lambda: "the caller",
    "channel axis": lambda: 1,
    "half precision": _half,
    "frozen": lambda: {"training_mode=0": "the operator returns no statistics"},
    "names in a checkpoint": lambda: ["scale", "B", "input_mean", "input_var"],
}

if __name__ == "__main__":
    protocol.main(__import__("onnx_adapter"))
