"""ONNX: the operator BatchNormalization, run by onnxruntime or, with ONNX_ENGINE=reference, by onnx itself."""

import os
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
import protocol
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

ENGINE = os.environ.get("ONNX_ENGINE", "onnxruntime")


def _model(channels: int, training: bool, element: int = TensorProto.FLOAT) -> onnx.ModelProto:
    names = ["x", "scale", "bias", "mean", "variance"]
    outputs = ["y", "new_mean", "new_variance"] if training else ["y"]
    node = helper.make_node("BatchNormalization", names, outputs, training_mode=int(training))
    inputs = [helper.make_tensor_value_info("x", element, ["N", channels])]
    inputs += [helper.make_tensor_value_info(each, element, [channels]) for each in names[1:]]
    results = [helper.make_tensor_value_info(each, element, None) for each in outputs]
    graph = helper.make_graph([node], "norm", inputs, results)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=10)


def _run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    if ENGINE == "reference":
        return ReferenceEvaluator(model).run(None, feeds)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


class Layer:
    """See ``protocol``."""

    def __init__(self, channels: int, dtype: type = np.float32) -> None:
        self.channels, self.dtype = channels, dtype
        one, zero = np.ones(channels, dtype), np.zeros(channels, dtype)
        self.state = {"scale": one, "bias": zero, "mean": zero.copy(), "variance": one.copy()}

    def train(self, x: np.ndarray) -> np.ndarray:
        element = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        output, mean, variance = _run(_model(self.channels, True, element), {"x": x, **self.state})
        self.state |= {"mean": np.asarray(mean, self.dtype), "variance": np.asarray(variance, self.dtype)}
        return output

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return _run(_model(self.channels, False), {"x": x, **self.state})[0]

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        return self.state["mean"], self.state["variance"]


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("onnx", "onnxruntime")} | {"run by": ENGINE}


def _half() -> dict[str, str]:
    layer = Layer(1, np.float16)
    output = layer.train(protocol.FOUR.astype(np.float16))
    return {"all inputs float16: output": str(output.dtype)}


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
