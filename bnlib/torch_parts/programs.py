"""Parts that make a program of a network: compiled, exported, written as ONNX, traced or scripted."""

from __future__ import annotations

import contextlib
import copy
import io

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib.extras import optional
from bnlib.torch_parts.measuring import (
    BATCH,
    Measured,
    Numbers,
    Part,
    attempt,
    network,
    output,
    statistics,
    train,
    trained,
)
from bnlib.torch_parts.recomputation import compiled


def compiled_with_many_sizes() -> Measured:
    """Train a compiled network with batches of different sizes, and run it in eval mode."""
    batches = [BATCH, torch.cat([BATCH, BATCH]), BATCH[:2]]
    plain, model = network(), network()
    expected = train(plain, batches=batches) | output(plain.eval())
    call = compiled(model)
    return Measured(expected, train(model, call, batches) | output(call.eval()))


def compiled_with_all_batches() -> Measured:
    """Compile a network whose running mean is that of all batches, as one graph."""

    def run(**options):
        model = network(nn.BatchNorm1d(1, momentum=None))
        return attempt(lambda: train(model, compiled(model, **options)))

    return Measured(train(network(nn.BatchNorm1d(1, momentum=None))), run(fullgraph=True), run())


def compiled_checkpoint() -> Measured:
    """Save the state of a compiled network, and load it into one that is not compiled."""
    model, loaded, other = trained(), network(), network()
    loaded.load_state_dict(compiled(model).state_dict(), strict=False)
    other.load_state_dict(model.state_dict())
    return Measured(statistics(model), statistics(loaded), statistics(other))


def exported_in_train_mode() -> Measured:
    """Export a network in train mode, and ask its program for eval mode."""
    model = trained()
    program = torch.export.export(model, (BATCH,)).module()

    def at_inference():
        program.eval()
        return output(program)

    expected = output(model.eval())
    return Measured(expected, attempt(at_inference), output(torch.export.export(model, (BATCH,)).module()))


def exported_buffers() -> Measured:
    """Run the program of a network in train mode, and look at the network."""
    model, other = network(), network()
    for exported in (model, copy.deepcopy(other)):
        program = torch.export.export(exported, (BATCH,)).module()
        for _ in range(3):
            program(BATCH)
    return Measured(statistics(network()), statistics(model), statistics(other))


def _written(model: nn.Module, **options) -> bytes:
    """Return the ONNX file of a model."""
    file = io.BytesIO()
    with contextlib.redirect_stdout(io.StringIO()):
        if options.get("dynamo"):
            torch.onnx.export(model, (BATCH,), verbose=False, **options).save(file)
        else:
            torch.onnx.export(model, (BATCH,), file, **options)
    return file.getvalue()


def _run(file: bytes) -> Numbers:
    """Return the output of onnxruntime."""
    onnxruntime = optional("onnxruntime", "running an exported network")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    first = session.run(None, {session.get_inputs()[0].name: BATCH.numpy()})[0]
    return {"output for 9": float(first.ravel()[0])}


def onnx_in_train_mode() -> Measured:
    """Write a network that is in train mode; the exporters write what it computes in eval mode."""
    model = trained()
    found = _run(_written(model, dynamo=True))
    return Measured(output(model.eval()), found)


class _BatchStatistics(nn.Module):
    """It normalises with the batch in both modes, and passes its running statistics along or not."""

    def __init__(self, with_running: bool) -> None:
        super().__init__()
        self.with_running = with_running
        self.register_buffer("mean", torch.tensor([2.71]))
        self.register_buffer("variance", torch.tensor([1.09]))

    def forward(self, x: Tensor) -> Tensor:
        running = (self.mean, self.variance) if self.with_running else (None, None)
        return F.batch_norm(x, *running, training=True)


def onnx_of_the_function() -> Measured:
    """Write a model that calls ``F.batch_norm(..., training=True)``, also in eval mode."""
    found, remedied = (_run(_written(_BatchStatistics(each).eval(), dynamo=True)) for each in (True, False))
    return Measured(output(_BatchStatistics(True).eval()), found, remedied)


def onnx_of_the_mode_as_it_is() -> Measured:
    """Write a network in train mode with the older exporter and ``TrainingMode.PRESERVE``."""
    model, other = trained(), trained()
    options = {"dynamo": False, "training": torch.onnx.TrainingMode.PRESERVE}
    _written(model, **options)
    _written(copy.deepcopy(other), **options)
    return Measured(statistics(trained()), statistics(model), statistics(other))


def traced() -> Measured:
    """Trace a network in train mode; the remedy traces it in eval mode."""
    model, other = trained(), trained().eval()
    expected = statistics(model) | output(copy.deepcopy(model).eval())
    program = torch.jit.trace(model, BATCH)
    found = statistics(model) | output(program.eval())
    other_program = torch.jit.trace(other, BATCH)
    return Measured(expected, found, statistics(other) | output(other_program))


def scripted() -> Measured:
    """Script a network, train the program, and run it in eval mode."""
    plain, model = network(), network()
    expected = train(plain) | output(plain.eval())
    program = torch.jit.script(model)
    return Measured(expected, train(model, program) | output(program.eval()))


_EXPORTERS = ("onnx", "onnxruntime", "onnxscript")
_AVERAGES = "[the running averages](07_why_is_my_bn_failing.ipynb#running-averages)"
PARTS = [
    Part(
        "torch.compile",
        "batches of 4, 8 and 2, then eval mode",
        compiled_with_many_sizes,
        "The statistics move as without compiling, also when the batch size changes, and `eval()` works.",
        "There is no difference.",
        "Nothing.",
    ),
    Part(
        "torch.compile",
        "`momentum=None` and `fullgraph=True`",
        compiled_with_all_batches,
        "`momentum=None` reads the counter in Python, which breaks the graph. With `fullgraph=True` this is an error.",
        "The error.",
        "Leave out `fullgraph=True`, or use a number as momentum.",
    ),
    Part(
        "torch.compile",
        "its `state_dict`, loaded with `strict=False`",
        compiled_checkpoint,
        "The names of a compiled network begin with `_orig_mod.`, so no name fits the plain network. With "
        "`strict=False` nothing is loaded: weights and statistics remain as initialised.",
        "`load_state_dict` returns the missing names, which few programs print.",
        "Save the `state_dict` of the network that you compiled, and load with `strict=True`.",
    ),
    Part(
        "torch.export",
        "a network in train mode",
        exported_in_train_mode,
        "The program normalises with the batch for good. Its `eval()` raises an error.",
        "The program contains `batch_norm` with `training=True` (print it), and one prediction depends on the others.",
        f"Call `model.eval()` before the export, after a look at {_AVERAGES}.",
    ),
    Part(
        "torch.export",
        "three runs of the program of a network in train mode",
        exported_buffers,
        "The program shares its buffers with the network that was exported, so running it moves the statistics of the "
        "network.",
        "The `num_batches_tracked` of the network moves while only the program runs.",
        "Export `copy.deepcopy(model)`.",
    ),
    Part(
        "torch.onnx.export",
        "a network in train mode, `dynamo=True`",
        onnx_in_train_mode,
        "The file computes what the network computes in eval mode. There is no message that the mode was another one.",
        "Compare the outputs of the file with those of `model.eval()`.",
        "Nothing, if inference is what you want. Call `model.eval()` all the same, so that dropout is also off.",
        _EXPORTERS,
    ),
    Part(
        "torch.onnx.export",
        "a call of `F.batch_norm(x, mean, variance, training=True)`, `dynamo=True`",
        onnx_of_the_function,
        "The file normalises with the running statistics, although the call asks for those of the batch, in both modes "
        "of the model. There is no message.",
        "Compare the outputs of the file with those of the model.",
        "Pass `None` for both running statistics.",
        _EXPORTERS,
    ),
    Part(
        "torch.onnx.export",
        "a network in train mode, `dynamo=False`, `TrainingMode.PRESERVE`",
        onnx_of_the_mode_as_it_is,
        "The older exporter traces a forward pass in train mode, which moves the statistics of the network.",
        "`num_batches_tracked` grows by one during the export.",
        "Export `copy.deepcopy(model)`, or export in eval mode.",
        _EXPORTERS,
    ),
    Part(
        "torch.jit.trace",
        "a network in train mode, then `eval()`",
        traced,
        "Tracing with its check runs the network five times, so the statistics move five times. The program normalises "
        "with the batch for good: its `eval()` changes nothing, and raises no error.",
        "`num_batches_tracked` grows by 5 during the trace.",
        "Call `model.eval()` before the trace.",
    ),
    Part(
        "torch.jit.script",
        "three batches, then `eval()`",
        scripted,
        "A scripted network keeps both modes, and its statistics move as they should.",
        "There is no difference.",
        "Nothing.",
    ),
]
"""The parts of this file."""
