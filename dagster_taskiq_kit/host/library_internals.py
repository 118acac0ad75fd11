"""Private parts of Python, NumPy, redis-py and taskiq: the one place that touches them.

Invariant: each function says why no public name does the same, and nothing else touches them. What
a later release renames raises AttributeError here; NumPy's own generator alone is looked for, and
left as it is where it is not found.
"""

import atexit
import multiprocessing.util
import socket
import threading
import weakref
from typing import Any


def forget_exit_handlers() -> None:
    """Forget what was registered for the end of this process: in a fork, that is its parent's.

    ``atexit.unregister`` wants each function, and finalizers have no public register at all.
    """
    atexit._clear()
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    multiprocessing.util._finalizer_registry.clear()  # type: ignore[attr-defined]


def run_exit_handlers() -> None:
    """Do what an interpreter does at its end and ``os._exit``, by which a fork leaves, does not."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    multiprocessing.util._exit_function()  # type: ignore[attr-defined]


def bits_of(generator: Any) -> Any:
    """Return the bit generator of NumPy's ``Generator`` or ``RandomState``; the latter hides it."""
    return getattr(generator, "bit_generator", None) or generator._bit_generator


def global_generator_of_numpy(numpy_random: Any) -> Any:
    """Return the generator behind ``numpy.random.rand``; None where NumPy is not loaded.

    Its public functions set its state, and do not tell whether somebody has chosen its seed.
    """
    return getattr(getattr(numpy_random, "mtrand", None), "_rand", None)


def socket_of(connection: Any) -> socket.socket:
    """Return the socket of a connection of redis-py, to poll it beside other descriptors."""
    found = connection._sock
    assert isinstance(found, socket.socket)
    return found


def message_of(kicker: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the message that a taskiq kicker would send; its public ``kiq`` sends it, too."""
    return kicker._prepare_message(*args, **kwargs)
