"""A data set as a whole."""

from bnlib.datasets import load


def test_a_data_set_moves_as_a_whole():
    moved = load("three_points").to("meta")
    assert {moved.train_x.device.type, moved.test_y.device.type} == {"meta"}
