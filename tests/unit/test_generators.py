"""Generators made at import are reseeded in a child, unless somebody chose their seed."""

import random
import sys
import types

import numpy as np
import pytest

from dagster_taskiq_kit.worker.warm.generators import chosen_seeds_noted, found_generators, reseed

MADE = {
    "random": random.Random,
    "numpy Generator": np.random.default_rng,
    "numpy RandomState": np.random.RandomState,
}
SEEDED = {
    "random": lambda: random.Random(42),
    "numpy Generator": lambda: np.random.default_rng(42),
    "numpy RandomState": lambda: np.random.RandomState(42),
}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of the user's own."""
    made = types.ModuleType("users_own")
    made.__file__ = str(tmp_path / "users_own.py")
    monkeypatch.setitem(sys.modules, "users_own", made)
    return made


def numbers_after_a_fork(module, make) -> tuple[list[float], list[float]]:
    """What the parent would have drawn, and what a child draws."""
    with chosen_seeds_noted():
        module.generator = make()
    state = _state_of(module.generator)
    drawn = _draw(module.generator)
    _set_state(module.generator, state)
    reseed(found_generators())
    return drawn, _draw(module.generator)


def _draw(generator) -> list[float]:
    return [float(generator.random()) for _ in range(3)]


def _state_of(generator):
    if isinstance(generator, random.Random):
        return generator.getstate()
    return (getattr(generator, "bit_generator", None) and generator.bit_generator.state) or (
        generator.get_state()
    )


def _set_state(generator, state) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif hasattr(generator, "bit_generator"):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)


@pytest.mark.parametrize("kind", MADE)
def test_a_generator_with_a_seed_of_the_systems_takes_another(module, kind):
    before, after = numbers_after_a_fork(module, MADE[kind])
    assert before != after


@pytest.mark.parametrize("kind", SEEDED)
def test_a_generator_whose_seed_was_chosen_is_left_alone(module, kind):
    before, after = numbers_after_a_fork(module, SEEDED[kind])
    assert before == after


def test_generators_of_installed_packages_are_their_own(module):
    module.__file__ = "/x/site-packages/users_own.py"
    module.generator = random.Random()
    assert module.generator not in found_generators()
