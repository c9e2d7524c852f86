"""The Train button in a real kernel: the run goes on behind the cell, and its pictures reach the notebook."""

import queue
import time

import pytest
from jupyter_client.manager import start_new_kernel

from chapters import code_cells
from tools.notebooks import CHAPTERS

# For the first point after a click, in seconds of processor time.
LONGEST_WAIT = 5.0
# Writes down in the kernel when a picture of a run comes, in its processor time.
WATCH = """
import threading, time
times, came = [], threading.Event()
panel.view.observe(lambda change: (times.append(time.process_time()), came.set()), "value")
"""
PATIENCE = 600  # seconds


@pytest.fixture(scope="module")
def kernel():
    manager, client = start_new_kernel(cwd=str(CHAPTERS))
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run(kernel, code):
    """Execute ``code``, which must succeed, and return the messages until the kernel is idle again."""
    messages = []
    reply = kernel.execute_interactive(code, timeout=PATIENCE, output_hook=messages.append)
    assert reply["content"]["status"] == "ok", reply["content"]
    return messages


def live_states(kernel, points):
    """Widget states that arrive although no cell is running, until so many pictures of the run have come."""
    until, states = time.monotonic() + PATIENCE, []
    while time.monotonic() < until and len({s["value"] for s in states if is_picture(s)}) < points:
        try:
            message = kernel.get_iopub_msg(timeout=1)
        except queue.Empty:
            continue
        if message["msg_type"] == "comm_msg":
            states.append(message["content"]["data"].get("state", {}))
    return states


def is_picture(state):
    return "<svg" in str(state.get("value", ""))


def test_training_goes_on_behind_the_cell_and_can_be_stopped(kernel):
    setup, *cells = [cell.source for cell in code_cells(CHAPTERS / "01_the_formula.ipynb")]
    explorer = next(source for source in cells if "train=training_curves.train" in source)
    few = "training_curves.BATCH_SIZES, training_curves.LEARNING_RATES = [1, 32], [0.1, 0.3]"  # to draw few pictures
    run(kernel, f"{setup}\n{few}\nexplorer = {explorer}\npanel = explorer.panel")
    run(kernel, "panel.controls['batch_size'].value = 1\npanel.train_button.click()")  # a long run
    states = live_states(kernel, points=3)
    assert len({state["value"] for state in states if is_picture(state)}) == 3
    texts = [str(state.get("value", "")) for state in states]
    notes = [text for text in texts if "your run" in text and "<svg" not in text]
    assert notes and "Batch size 1" in notes[0]
    assert any(isinstance(state.get("value"), (int, float)) and state["value"] > 0 for state in states), "no progress"
    run(kernel, f"assert panel.thread.is_alive(); panel.stop_button.click(); panel.thread.join({PATIENCE})")
    run(kernel, "assert not panel.thread.is_alive()")
    run(
        kernel,
        "assert 'Training at batch size 1, learning rate 0.1 stopped because you pressed Stop' in panel.status.value",
    )
    run(kernel, "assert 'your run' in panel.note.value and not panel.train_button.disabled")
    # A run that the slider leaves behind ends by itself.
    run(kernel, "panel.train_button.click(); first = panel.thread\npanel.controls['batch_size'].value = 32")
    run(kernel, f"first.join({PATIENCE}); assert not first.is_alive() and 'your run' not in panel.note.value")
    words = "stopped because you changed the batch size. Press Train to train the new setting."
    run(kernel, f"assert {words!r} in panel.status.value and not panel.progress.children")
    run(kernel, f"{WATCH}\nbegan = time.process_time()\npanel.train_button.click()")
    assert live_states(kernel, points=1)
    run(kernel, f"assert came.wait({PATIENCE})")  # the message may arrive before the observer is called
    run(kernel, f"print(times[0] - began); assert times[0] - began < {LONGEST_WAIT}")
    run(
        kernel,
        f"panel.thread.join({PATIENCE}); assert 'Batch size 32' in panel.note.value and 'your run' in panel.note.value",
    )
    run(kernel, "assert 'is finished. The figure shows your run.' in panel.status.value")


def test_who_reads_gets_sliders_and_who_converts_gets_the_drawing(kernel):
    """As nbconvert --execute, papermill and nbval do, the second asks that no cell may wait for input."""
    run(kernel, "from bnlib import widgets\ndef draw(figure, data, b): return f'Nothing is drawn at batch size {b}.'")
    slider = "widgets.Slider('b', 'batch size', [1, 2], 2)"
    code = f"widgets.Explorer('e', 'A title', [{slider}], lambda b: b, draw)"
    for reader in (True, False):
        messages = []
        kernel.execute_interactive(code, timeout=PATIENCE, allow_stdin=reader, output_hook=messages.append)
        (data,) = (m["content"]["data"] for m in messages if m["msg_type"] == "execute_result")
        assert ("application/vnd.jupyter.widget-view+json" in data) == reader
        assert "<svg" in data["text/html"]
        opened = [m for m in messages if m["msg_type"] == "comm_open"]
        assert bool(opened) == reader, "state that nbconvert would show"
