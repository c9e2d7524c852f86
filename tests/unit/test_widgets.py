"""Explorers: the page without a kernel, the panel with one, and the live run behind it."""

import html
import json
import re
import threading

import pytest
from bs4 import BeautifulSoup

from bnlib.widgets import Choice, Explorer, Slider

PATIENCE = 300  # of each wait, in seconds: on a busy machine all takes long
CONTROLS = [Slider("b", "batch size", [1, 2, 4], 2, "{:d}"), Slider("lr", "learning rate", [0.1, 1.0], 1.0)]


def draw(figure, data, b, lr):
    figure.subplots().plot(data)
    return f"b={b} lr={lr:g} data={data} <&>"


def explorer(train=None, **options):
    return Explorer("test", "A title & more", CONTROLS, lambda b, lr: [b, lr], draw, train=train, **options)


def payload(page):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', page, flags=re.S)[1])


def test_the_page_holds_every_frame_in_the_order_that_its_script_counts():
    shown = explorer()
    data = payload(shown.html)
    for place, setting in enumerate(shown.settings()):
        runs = data["frames"][place]
        lines = [line for i in range(0, len(runs), 2) for line in data["lines"][runs[i] : runs[i + 1]]]
        assert "\n".join(lines) == shown.frames[tuple(setting.values())][0]
        assert data["notes"][place] == shown.frames[tuple(setting.values())][1]
    assert [list(s.values()) for s in shown.settings()][:3] == [[1, 0.1], [1, 1.0], [2, 0.1]]


def test_the_page_shows_the_default_before_any_script_runs():
    shown = explorer()
    svg, note = shown.frames[2, 1.0]
    assert f'<div class="bnb-stage">{svg}</div>' in shown.html
    assert html.escape(note) in shown.html
    assert re.findall(r'value="(\d)" aria-valuetext="([^"]*)"', shown.html) == [("1", "2"), ("1", "1")]
    assert "These controls do nothing here, because this view does not run the script" in shown.html


def test_nothing_in_the_data_can_end_the_script_early():
    shown = Explorer("x", "t", CONTROLS, lambda b, lr: [b], lambda figure, data, b, lr: f"</script><b>{b}{lr}")
    assert shown.html.count("</script>") == 1
    assert payload(shown.html)["notes"][0] == "</script><b>10.1"


def test_a_page_over_its_budget_is_refused():
    message = r"budget of explorer 'test' must be at least [\d,]+ bytes for its 6 frames, got 1,000"
    with pytest.raises(ValueError, match=message):
        explorer(budget=1000)._repr_mimebundle_()


def test_a_control_that_cannot_work_is_refused():
    with pytest.raises(ValueError, match=r"default of Slider 'lr' must be one of .*got 3"):
        Slider("lr", "learning rate", [1, 2], 3)
    with pytest.raises(ValueError, match=r"values of Choice 'norm' must hold at least two"):
        Choice("norm", "norm", ["BN"], "BN")
    with pytest.raises(ValueError, match=r"format of Slider 'lr' must write each value differently"):
        Slider("lr", "learning rate", [0.01, 0.011], 0.01, "{:.2f}")
    with pytest.raises(ValueError, match=r"must have keys among \['BN', 'LN'\], got \['GN'\]"):
        Choice("norm", "norm", ["BN", "LN"], "BN", {"GN": "group norm"})
    with pytest.raises(ValueError, match=r"with different names, got the names \['b', 'b'\]"):
        Explorer("test", "t", [CONTROLS[0], CONTROLS[0]], lambda b: [b], draw)


FEW = Choice("init", "initialisation", ["torch", "He"], "He", {"torch": "PyTorch's <default>"})
MANY = Choice("norm", "norm", [f"normalisation number {number}" for number in range(9)], "normalisation number 3")


def test_few_names_are_radio_buttons_and_many_a_menu_each_with_its_label():
    shown = Explorer(
        "x", "t", [FEW, MANY], lambda init, norm: [1, 2], lambda figure, data, init, norm: f"{init} {norm}"
    )
    page = BeautifulSoup(shown.html, "html.parser")
    buttons = page.select("fieldset.bnb-choice input[type=radio]")
    assert page.select_one("fieldset > legend").text == "initialisation"
    assert [button.parent.text for button in buttons] == ["PyTorch's <default>", "He"]
    assert [button.has_attr("checked") for button in buttons] == [False, True]
    assert len({button["name"] for button in buttons}) == 1
    menu = page.select_one("select")
    assert page.select_one(f"label[for='{menu['id']}']").text == "norm"
    assert [option.text for option in menu.select("option")] == MANY.texts
    assert menu.select_one("option[selected]").text == "normalisation number 3"
    assert not page.select("input[type=range]")


def test_a_notebook_has_buttons_a_menu_and_sliders_with_their_ends():
    controls = [FEW, MANY, CONTROLS[0]]
    panel = Explorer("x", "t", controls, lambda **_: [1], lambda figure, data, **setting: str(setting)).panel
    kinds = [type(each).__name__ for each in panel.controls.values()]
    assert kinds == ["ToggleButtons", "Dropdown", "SelectionSlider"]
    assert [each.description for each in panel.controls.values()] == ["initialisation", "norm", "batch size"]
    assert "1 to 4" in [each.value for row in panel.box.children[1].children for each in getattr(row, "children", ())]
    panel.controls["norm"].value = "normalisation number 7"
    panel.controls["init"].value = "torch"
    assert panel.note.value == html.escape(str({"init": "torch", "norm": "normalisation number 7", "b": 2}))


def test_a_panel_says_what_to_do_when_its_kernel_is_gone():
    first = explorer().panel.box.children[0].value
    assert "Run this cell again." in first
    assert ".bnb-gone { display: none }\n.jupyter-widgets-disconnected .bnb-gone { display: block }" in first


def test_drawings_with_other_axes_are_refused():
    def uneven(figure, data, b, lr):
        figure.subplots(1, b)
        return "a note"

    with pytest.raises(ValueError, match="figure must have 2 axes, as at the explorer's default setting, got 1"):
        _ = Explorer("x", "t", CONTROLS, lambda b, lr: [b], uneven).html


def test_a_name_that_cannot_be_part_of_an_address_is_refused():
    with pytest.raises(ValueError, match="got 'two words'"):
        Explorer("two words", "t", CONTROLS, lambda b, lr: [b], draw)


def test_a_notebook_gets_widgets_and_a_page_gets_html():
    bundle = explorer()._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/html"].startswith("<div") and bundle["text/plain"] == "[Explorer: A title & more]"


def test_a_slider_moves_the_picture():
    panel = explorer().panel
    for b in (1, 4, 2):
        panel.controls["b"].value = b
        assert f"b={b} lr=1" in panel.note.value
        assert panel.explorer.frames[b, 1.0][0] in panel.view.value


def test_the_axes_stand_still_while_a_slider_moves():
    frames = explorer().frames
    spines = {
        tuple(re.findall(r'd="(M [^"]*)" style="fill: none; stroke: currentColor', svg)) for svg, _ in frames.values()
    }
    windows = {tuple(re.findall(r'viewBox="([^"]*)"', svg)) for svg, _ in frames.values()}
    assert len(spines) == 1 == len(windows) and spines.pop()


def test_without_train_there_is_no_button():
    assert not hasattr(explorer().panel, "train_button")


def finish(panel):
    panel.thread.join(PATIENCE)
    assert not panel.thread.is_alive()


def test_train_draws_each_point_and_comes_back_to_its_last():
    def train(b, lr):
        for done in range(4):
            seen.append(panel.note.value)
            yield done, 3, [b, lr, done]

    seen = []
    panel = explorer(train).panel
    panel.train_button.click()
    finish(panel)
    assert [f"data=[2, 1.0, {done}]" in html.unescape(text) for done, text in enumerate(seen[1:])] == [True] * 3
    assert "data=[2, 1.0, 3]" in panel.note.value
    assert "Training at batch size 2, learning rate 1 is finished. The figure shows your run." in panel.status.value
    panel.controls["b"].value = 4
    assert "Training" not in panel.status.value
    assert "data=[4, 1.0]" in panel.note.value
    panel.controls["b"].value = 2
    assert "data=[2, 1.0, 3]" in panel.note.value  # the live run is kept
    bar = panel.progress.children[0].children
    assert bar[1].value == 3 == bar[1].max


def test_stop_ends_the_run_and_keeps_what_was_drawn():
    started, go_on = threading.Event(), threading.Event()

    def train(b, lr):
        yield 0, 10, [0]
        started.set()
        go_on.wait(PATIENCE)
        yield 1, 10, [1]
        pytest.fail("went on after stop")

    panel = explorer(train).panel
    panel.train_button.click()
    assert started.wait(PATIENCE)
    assert panel.train_button.disabled and not panel.stop_button.disabled
    panel.stop_button.click()
    go_on.set()
    finish(panel)
    assert "stopped because you pressed Stop. Press Train to start a new run." in panel.status.value
    assert "data=[0]" in panel.note.value and not panel.progress.children
    assert not panel.train_button.disabled and panel.stop_button.disabled


def test_moving_a_slider_ends_the_run_and_shows_the_new_position():
    started, go_on, closed = threading.Event(), threading.Event(), []

    def train(b, lr):
        try:
            yield 0, 10, [b, 0]
            started.set()
            go_on.wait(PATIENCE)
            yield 1, 10, [b, 1]
            pytest.fail("went on after the slider had moved")
        finally:
            closed.append(b)

    panel = explorer(train).panel
    panel.train_button.click()
    assert started.wait(PATIENCE)
    panel.controls["b"].value = 4
    assert "data=[4, 1.0]" in panel.note.value
    go_on.set()
    finish(panel)
    assert closed == [2] and "data=[4, 1.0]" in panel.note.value
    assert (
        "Training at batch size 2, learning rate 1 stopped because you changed the batch size. "
        "Press Train to train the new setting." in panel.status.value
    )
    assert not panel.progress.children  # no red bar
    assert not panel.train_button.disabled
    panel.controls["b"].value = 2
    assert "data=[2, 0]" in panel.note.value  # as far as it came


def test_a_run_can_start_while_the_one_before_is_ending():
    began, go_on, order = threading.Event(), threading.Event(), []

    def train(b, lr):
        order.append(("begins", b))
        yield 0, 2, [b, 0]
        if b == 2:
            began.set()
            go_on.wait(PATIENCE)
        yield 1, 2, [b, 1]
        order.append(("ends", b))

    panel = explorer(train).panel
    panel.start()
    assert began.wait(PATIENCE)
    panel.controls["b"].value = 4
    panel.start()
    assert panel.train_button.disabled
    go_on.set()
    finish(panel)
    assert order == [("begins", 2), ("begins", 4), ("ends", 4)]
    assert "data=[4, 1]" in panel.note.value and not panel.train_button.disabled
    assert "Training at batch size 4, learning rate 1 is finished" in panel.status.value


def test_a_run_that_fails_says_so_and_keeps_its_last_good_picture():
    def train(b, lr):
        yield 0, 2, [7]
        raise RuntimeError("the device is <gone>")

    panel = explorer(train).panel
    panel.train_button.click()
    finish(panel)
    assert "failed with RuntimeError: the device is &lt;gone&gt;" in panel.status.value
    assert "data=[7]" in panel.note.value
    assert not panel.train_button.disabled


def test_a_second_click_does_not_start_a_second_run():
    go_on, calls = threading.Event(), []

    def train(b, lr):
        calls.append(1)
        go_on.wait(PATIENCE)
        yield 1, 1, [1]

    panel = explorer(train).panel
    panel.start()
    panel.start()
    go_on.set()
    finish(panel)
    assert calls == [1]
