"""For a user's own tests as for ours: a real fleet, and a resource that needs none.

Invariant: a :class:`Fleet` is real worker processes and an instance's own storage, on a broker that
the test names; its processes end with the test, also when the test process is killed.
:class:`InProcessTaskiqResource` executes users' tasks at once, in the test's process.
"""

from .fleet import Fleet
from .local import InProcessTaskiqResource

__all__ = ["Fleet", "InProcessTaskiqResource"]
