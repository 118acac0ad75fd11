"""With which code a run was launched: a tag with the fingerprint of its source files.

Invariant: a fingerprint is said only where it is that of the code that the code server has loaded:
its files are on this machine, and were not written since. Else nothing is said.
"""

from collections.abc import Mapping

from ..code_locations.source_files import SourceFiles
from ..dagster_internals import code_locations
from ..dagster_internals import names as internals
from ..vocabulary.tags import CODE_TAG


class LaunchedCode:
    """Finds out with which code runs are launched; reads again only the files that were written."""

    def __init__(self) -> None:
        self._files: dict[tuple[object, ...], SourceFiles] = {}

    def tags(self, context: internals.LaunchRunContext) -> Mapping[str, str]:
        """Return the tag for a run that is being launched; none where nothing is known.

        Args:
            context: What Dagster says of the launch.
        """
        roots, loaded_at_s = code_locations.launched_source(context)
        if not roots or not loaded_at_s:
            return {}
        reading = self._files.setdefault(tuple(roots), SourceFiles(roots)).read()
        if not reading.fingerprint or reading.newest_s > loaded_at_s:
            return {}
        return {CODE_TAG: reading.fingerprint}
