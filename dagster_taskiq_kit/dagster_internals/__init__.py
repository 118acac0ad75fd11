"""The one door to private Dagster: whatever is used of it, and may be renamed by it, is in here.

Invariant: no other room imports a private module of Dagster, reads a private attribute of its
objects, or speaks SQL on its schema. Importing it fails with one sentence on a Dagster that lacks
any of it. Each patch of Dagster says why it is made, and is made in
processes of the kit's own only.
"""

from . import leaned_on as leaned_on
