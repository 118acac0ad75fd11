"""Random generators that were made at import: children that are forked do not share their numbers.

Invariant: a generator that was seeded on purpose is left alone, since every step of Dagster's own
executors begins with it, too. One that took its seed from the system takes another in each child.
"""

import contextlib
import random
import sys
import sysconfig
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

from ...host.library_internals import bits_of, global_generator_of_numpy

#: Entropy of the system has 128 bits; a seed that a person chose has not.
_LARGEST_CHOSEN = 2**64
#: Set on a generator of the standard library: it does not tell by itself.
_CHOSEN = "dagster_taskiq_kit_seed_was_chosen"
_NOT_THE_USERS = ("site-packages", "dist-packages")


@contextlib.contextmanager
def chosen_seeds_noted() -> Generator[None, None, None]:
    """Note meanwhile which generators of the standard library get a seed that somebody chose."""
    seed = random.Random.seed

    def noting(self: random.Random, a: Any = None, version: int = 2) -> None:
        seed(self, a, version)
        if a is not None:
            with contextlib.suppress(AttributeError):
                setattr(self, _CHOSEN, True)

    random.Random.seed = noting  # type: ignore[method-assign]
    try:
        yield
    finally:
        random.Random.seed = seed  # type: ignore[method-assign]


def found_generators() -> Sequence[Any]:
    """Return the generators of numpy and of the standard library in the user's own modules."""
    standard = Path(sysconfig.get_path("stdlib"))
    found: dict[int, Any] = {}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or set(Path(file).parts) & set(_NOT_THE_USERS):
            continue
        if standard in Path(file).parents:
            continue
        found |= {id(each): each for each in vars(module).values() if _is_generator(each)}
    return list(found.values())


def _is_generator(value: object) -> bool:
    kind = type(value)
    if kind is random.Random:
        return True
    return kind.__module__.startswith("numpy.random") and kind.__name__ in (
        "Generator", "RandomState",
    )  # fmt: skip


def reseed(generators: Iterable[Any]) -> None:
    """Give generators, and the global one of numpy, seeds of this process.

    The global one of the standard library is seeded anew by the interpreter's own fork hook.
    """
    numpy_random = sys.modules.get("numpy.random")
    of_numpy = [global_generator_of_numpy(numpy_random)]
    for each in (*of_numpy, *generators):
        if each is not None and not _was_chosen(each):
            _reseed(each)


def _was_chosen(generator: Any) -> bool:
    """Return whether somebody chose the seed; one of the standard library's does not tell."""
    if isinstance(generator, random.Random):
        return bool(getattr(generator, _CHOSEN, False))
    bits = bits_of(generator)
    sequence = getattr(bits, "seed_seq", None)
    entropy = getattr(sequence, "entropy", None)
    return not (isinstance(entropy, int) and entropy > _LARGEST_CHOSEN)


def _reseed(generator: Any) -> None:
    if isinstance(generator, random.Random):
        generator.seed()
        return
    bits = bits_of(generator)
    bits.state = type(bits)().state
