"""Loading a data set by name."""

from contextlib import contextmanager

import pytest
import torch

from bnlib.datasets import load, randomly_scaled


@pytest.mark.parametrize(("name", "hint"), [("mnst", "did you mean 'mnist'"), ("imagenet", "got 'imagenet'")])
def test_an_unknown_name_is_answered_with_the_known_ones(name, hint):
    with pytest.raises(ValueError, match=f"'digits', 'mnist', .*{hint}"):
        load(name)


def test_an_unknown_option_is_named():
    with pytest.raises(TypeError, match="colour"):
        load("digits", colour=True)


@pytest.mark.parametrize("name", ["digits", "three_points", "wide_variation"])
def test_a_folder_for_a_data_set_without_files_is_refused(name):
    with pytest.raises(ValueError, match=f"root must be None for {name}, .*, got '/data'"):
        load(name, root="/data")


def tensors(data):
    return [data.train_x, data.train_y, data.test_x, data.test_y]


OWN = {
    "digits": lambda: tensors(load("digits")),
    "three_points": lambda: tensors(load("three_points")),
    "wide_variation": lambda: tensors(load("wide_variation", num_classes=5, num_train=20, num_test=10)),
    "scaled": lambda: [randomly_scaled("digits").train_x, randomly_scaled("digits").test_y],
}


@pytest.mark.parametrize("made", OWN.values(), ids=OWN)
def test_the_caller_may_change_what_was_loaded(made):
    first, expected = made(), [value.clone() for value in made()]
    for number, value in enumerate(first):
        value.fill_(7)
        others = [other for place, other in enumerate(first) if place > number]
        assert all(map(torch.equal, others, expected[number + 1 :]))  # nor do train and test set share memory
    assert all(map(torch.equal, made(), expected))


@pytest.mark.parametrize("made", OWN.values(), ids=OWN)
def test_the_defaults_of_pytorch_do_not_matter(made):
    expected = made()
    for settings in (torch.device("meta"), default_type(torch.float64)):
        with settings:
            found = made()
        assert all(map(torch.equal, found, expected))
        assert [value.dtype for value in found] == [value.dtype for value in expected]


@contextmanager
def default_type(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
