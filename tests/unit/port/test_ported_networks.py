"""The committed result of findings/frameworks/ported_networks.py, which Appendix C shows."""

import pytest

from bnlib import frameworks, port

FOUND = frameworks.ported()


@pytest.mark.parametrize("name", FOUND["networks"])
def test_five_networks_keep_their_outputs_and_statistics(name):
    found = FOUND["networks"][name]
    assert max(found["outputs"], found["statistics"], found["outputs back"]) < 1e-6
    assert found["test error"] < 0.5


def test_a_layer_goes_to_each_framework_and_back():
    assert {*FOUND["layers"]} == {*port.FRAMEWORKS} - {"torch"}
    assert max(value for each in FOUND["layers"].values() for value in each.values()) < 1e-6


def test_the_versions_are_those_of_the_table_of_conventions():
    rows = frameworks.load()
    assert FOUND["versions"]["keras"] == rows["keras-jax"]["versions"]["keras"]
    assert FOUND["versions"]["flax"] == rows["flax-linen"]["versions"]["flax"]
    assert FOUND["measured"] >= rows["torch"]["measured"]


def test_each_mistake_is_made_in_the_networks_that_can_have_it():
    made = {name: {each.split(" ")[0] for each in found["without"]} for name, found in FOUND["networks"].items()}
    assert made["keras"] == {"eps", "axis", "momentum", "unbiased"} and "eps" not in made["nnx"]
    assert len(frameworks.mistake_rows()) == sum(map(len, made.values())) and len(frameworks.carried_rows()) == 5
    wrong_axis = FOUND["networks"]["keras"]["without"]["axis 1 in channels-last images"]
    assert wrong_axis["test error"] > 0.5
