"""The one door to private Dagster: whatever is used of it, and may be renamed by it, is in here.

Invariant: no other room imports a private module of Dagster, reads a private attribute of its
objects, or speaks SQL on its schema. Importing it fails with one sentence on a Dagster that lacks
any of it. Each patch says why it is made. It is made in processes of the kit's own and, for as long
as it executes a run, in the process that does so (``dagster job execute``).
"""

from . import leaned_on as leaned_on
