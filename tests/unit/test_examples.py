"""The examples in docstrings: `pytest --doctest-modules bnlib` runs them; here, that they are there."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import bnlib

MODULES = [
    found.name for found in pkgutil.iter_modules(bnlib.__path__) if found.name not in ("__main__", "experiments")
]
# What a function returns is shown where the function is, and a figure in its chapter.
RESULTS = "Cache Estimate Estimates FullNormCache History Layer LayerStack VmapStack Panel Stack State"
FILES_NEEDED, PROCESSES = "mnist fashion_mnist cifar10", "run_jobs"
SHOWN_ELSEWHERE = {*RESULTS.split(), *FILES_NEEDED.split(), PROCESSES, "DatasetError", "UserCodeError"}


def examples(thing) -> list[doctest.Example]:
    return doctest.DocTestParser().get_examples(inspect.getdoc(thing) or "")


@pytest.mark.parametrize("name", [name for name in bnlib.__all__ if callable(getattr(bnlib, name))])
def test_what_bnlib_offers_has_an_example_that_prints_something(name):
    assert any(example.want for example in examples(getattr(bnlib, name)))


@pytest.mark.parametrize("name", MODULES)
def test_a_function_that_readers_call_has_an_example(name):
    module = importlib.import_module(f"bnlib.{name}")
    names = getattr(module, "__all__", None) or [
        key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__
    ]
    wanted = [getattr(module, each) for each in names if each[0] != "_" and each not in SHOWN_ELSEWHERE]
    called = [each for each in wanted if inspect.isfunction(each) and not each.__name__.startswith("draw_")]
    assert not [each.__name__ for each in called if not examples(each)]


def test_the_examples_are_many_and_short():
    modules = [importlib.import_module(found.name) for found in pkgutil.walk_packages(bnlib.__path__, "bnlib.")]
    found = [test for module in modules for test in doctest.DocTestFinder().find(module) if test.examples]
    assert len(found) > 120
    assert not [test.name for test in found if sum(len(each.source.splitlines()) for each in test.examples) > 16]
    assert all("+SKIP" not in each.source for test in found for each in test.examples)
