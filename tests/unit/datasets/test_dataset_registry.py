"""Loading a data set by name."""

import pytest

from bnlib.datasets import load


@pytest.mark.parametrize(("name", "hint"), [("mnst", "did you mean 'mnist'"), ("imagenet", "got 'imagenet'")])
def test_an_unknown_name_is_answered_with_the_known_ones(name, hint):
    with pytest.raises(ValueError, match=f"'digits', 'mnist', .*{hint}"):
        load(name)


def test_an_unknown_option_is_named():
    with pytest.raises(TypeError, match="colour"):
        load("digits", colour=True)
