"""A real fleet for tests: broker, instance and workers, for a user's own tests as for ours.

Invariant: everything is real (a Valkey, worker processes, the instance's own storage), listens on
127.0.0.1 only, and ends with the test, also when the test process is killed.
"""

from .fleet import Fleet
from .local import InProcessTaskiqResource

__all__ = ["Fleet", "InProcessTaskiqResource"]
