"""Serves each code location by what stands in its files: a new fork server beside the old one.

Invariant: a location is served without a gap. The old fork server is replaced when the new one is
ready, and lives on until what began in it has ended; code that does not import leaves it serving,
and that is said. What is claimed after a change was seen waits for the new code.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..code_locations.source_files import Reading, SourceFiles
from ..vocabulary.errors import CodeLoadFailed
from ..vocabulary.log_actions import Action, about
from ..vocabulary.wording import counted
from .process.fork_client import ForkServerClient
from .warm.loaded_source import LoadedSource

logger = logging.getLogger(__name__)

#: Files are looked at so often, and less often where a look takes long.
_LOOK_EVERY_S, _LOOK_SHARE = 1.0, 0.02
#: Of the time in which messages begin, what looks before them may take.
_LOOK_SHARE_OF_CLAIMS = 0.1
#: Who writes files writes several: they are loaded when none was written for so long.
_QUIET_S, _MOST_LOOKS_FOR_QUIET = 0.3, 100
_IMPORT_WITHIN_S = 900.0
#: Code that did not import is tried again, though its files are as they were.
_AGAIN_FIRST_S, _AGAIN_LAST_S = 30.0, 600.0
#: Workers that began together do not reload together: each at its own share of the age.
_LEAST_SHARE_OF_AGE = 0.8
_SHOWN_FILES = 3


@dataclass
class _Served:
    """What is known of one location.

    Args:
        source: From which files its fork server imported, when it was last looked at.
        files: Those files.
        loaded: What stood in them then.
        due_s: Monotonic time at which its code is too old.
        tried: Fingerprint of files that did not import.
        again_s: Monotonic time at which they are tried again.
        pause_s: After how long that is.
        resettled: It was loaded again because its files were written during its import.
        told: Somebody asked for it.
        stale: Why it is served by older code than its files have; '' when it is not.
        reloading: While it is loaded again.
        awaited: Whether what is claimed meanwhile waits for it.
        asked_s: Monotonic time at which the files were looked at for a message.
        look_took_s: How long the last look took.
    """

    source: LoadedSource | None = None
    files: SourceFiles = field(default_factory=lambda: SourceFiles([]))
    loaded: Reading = field(default_factory=Reading)
    due_s: float = float("inf")
    tried: str | None = None
    again_s: float = 0.0
    pause_s: float = _AGAIN_FIRST_S
    resettled: bool = False
    told: bool = False
    stale: str = ""
    reloading: "asyncio.Task[None] | None" = None
    awaited: bool = False
    asked_s: float = float("-inf")
    look_took_s: float = 0.0


class Reloading:
    """Watches the files of code locations and replaces fork servers.

    Args:
        servers: The fork servers, one a location; replaced in place.
        installed: Called when one was replaced.
    """

    def __init__(self, servers: list[ForkServerClient], installed: Callable[[], None]) -> None:
        self._servers = servers
        self._installed = installed
        self._served = [_Served() for _ in servers]
        self._one_at_a_time = asyncio.Lock()
        #: Replaced, with something still at work.
        self.retired: list[ForkServerClient] = []

    def stale(self) -> dict[str, str]:
        """Return why locations are served by older code than their files have, by name."""
        return {
            server.location.name: served.stale
            for server, served in zip(self._servers, self._served, strict=True)
            if served.stale
        }

    def tell(self) -> None:
        """Load all locations again."""
        for served in self._served:
            served.told = True

    async def current(self, number: int) -> None:
        """Wait while a location is loaded again because it has other code than its files.

        The files are looked at once more, at most once a second.

        Args:
            number: Its place among the fork servers.
        """
        served, now_s = self._served[number], time.monotonic()
        if now_s - served.asked_s >= max(_LOOK_EVERY_S, served.look_took_s / _LOOK_SHARE_OF_CLAIMS):
            served.asked_s = now_s
            await self._look(number)
        while served.reloading is not None and served.awaited:
            await asyncio.wait([served.reloading])

    async def watch(self) -> None:
        """Look at the files for as long as the worker works."""
        while True:
            began_s = time.monotonic()
            for number in range(len(self._servers)):
                await self._look(number)
            for server in [each for each in self.retired if each.is_idle]:
                self.retired.remove(server)
                await server.stop()
            took_s = time.monotonic() - began_s
            await asyncio.sleep(max(_LOOK_EVERY_S, took_s / _LOOK_SHARE))

    async def stop(self) -> None:
        """End what is being started and what was replaced."""
        for served in self._served:
            if served.reloading is not None:
                served.reloading.cancel()
                await asyncio.wait([served.reloading])
        await asyncio.gather(*(server.stop() for server in self.retired))

    async def _look(self, number: int) -> None:
        server, served = self._servers[number], self._served[number]
        if server.source is None or served.reloading is not None:
            return
        if served.source is not server.source:
            self._begin_to_watch(served, server.source, server.location.max_code_age_s)
        began_s, reading = time.monotonic(), served.loaded
        if server.location.reload != "never":
            reading = await asyncio.to_thread(served.files.read)
        served.look_took_s = time.monotonic() - began_s
        if served.reloading is not None or served.source is not server.source:
            return  # who looked at the same time has found it
        changed = reading.fingerprint != server.source.fingerprint
        if not changed and served.tried != reading.fingerprint:
            served.tried, served.stale = None, ""
        why = self._why_awaited(server, served, reading, changed=changed)
        served.awaited = bool(why)
        why = why or self._why(server, served, reading, changed=changed)
        if why:
            served.told = False
            served.reloading = asyncio.create_task(self._reload(number, why))

    def _why_awaited(
        self, server: ForkServerClient, served: _Served, reading: Reading, *, changed: bool
    ) -> str:
        """Return why a location is loaded again before anything more begins in it; '' if not."""
        if served.told:
            return "it was told to"
        if changed and server.location.reload == "auto" and reading.fingerprint != served.tried:
            return self._named(served, reading)
        unsettled = server.source is not None and not server.source.settled
        if unsettled and server.location.reload == "auto" and not served.resettled:
            served.resettled = True
            return "files were written during its import"
        return ""

    def _why(
        self, server: ForkServerClient, served: _Served, reading: Reading, *, changed: bool
    ) -> str:
        """Return why a location is loaded again while it goes on as it is; '' if not."""
        now_s = time.monotonic()
        if changed and server.location.reload == "auto" and now_s > served.again_s:
            return self._named(served, reading)
        if changed and server.location.reload == "told":
            served.stale = f"{self._named(served, reading)}; it is loaded again when it is told to"
        if now_s > max(served.due_s, served.again_s):
            return f"it is older than {server.location.max_code_age_s:g} s"
        return ""

    @staticmethod
    def _named(served: _Served, reading: Reading) -> str:
        files = reading.changed_since(served.loaded)
        more = f" and {len(files) - _SHOWN_FILES} more" if len(files) > _SHOWN_FILES else ""
        return f"{counted(len(files), 'file')} changed ({', '.join(files[:_SHOWN_FILES])}{more})"

    @staticmethod
    def _begin_to_watch(served: _Served, source: LoadedSource, max_age_s: float) -> None:
        served.source, served.loaded = source, source.reading()
        served.files = SourceFiles(source.roots)
        age_s = max_age_s * random.uniform(_LEAST_SHARE_OF_AGE, 1)
        served.due_s = time.monotonic() + age_s if age_s else float("inf")

    async def _reload(self, number: int, why: str) -> None:
        served, reading = self._served[number], Reading()
        try:
            reading = await self._read_when_quiet(served)
            async with self._one_at_a_time:
                await self._replace(number, why, reading)
        except Exception as error:
            said = about(Action.RELOAD_FAILED, location=self._name(number))
            logger.exception(
                "Code location %r was not loaded again.", self._name(number), extra=said
            )
            self._put_off(served, reading.fingerprint, f"{why}; loading it again failed: {error}")
        finally:
            served.reloading = None

    @staticmethod
    async def _read_when_quiet(served: _Served) -> Reading:
        reading = await asyncio.to_thread(served.files.read)
        for _ in range(_MOST_LOOKS_FOR_QUIET):
            await asyncio.sleep(_QUIET_S)
            before, reading = reading, await asyncio.to_thread(served.files.read)
            if reading.fingerprint == before.fingerprint:
                break
        return reading

    async def _replace(self, number: int, why: str, reading: Reading) -> None:
        served, old = self._served[number], self._servers[number]
        new = ForkServerClient(old.location, relay=old.relay)
        try:
            await asyncio.wait_for(new.start(), _IMPORT_WITHIN_S)
        except (CodeLoadFailed, asyncio.TimeoutError, OSError) as error:
            await new.stop()
            cause = error.cause if isinstance(error, CodeLoadFailed) else repr(error)
            said = f"{why}, and the code does not import: {cause}"
            logger.error(
                "Code location %r: %s. The code that was loaded before goes on serving.\n%s",
                self._name(number), said, error,
                extra=about(Action.RELOAD_FAILED, location=self._name(number)),
            )  # fmt: skip
            self._put_off(served, reading.fingerprint, said)
            return
        except BaseException:
            await new.stop()
            raise
        self._servers[number] = new
        self.retired.append(old)
        old.retire()
        served.tried, served.stale, served.pause_s = None, "", _AGAIN_FIRST_S
        served.again_s = 0.0
        logger.info(
            "Code location %r was loaded again: %s.", self._name(number), why,
            extra=about(Action.RELOADED, location=self._name(number)),
        )  # fmt: skip
        self._installed()

    @staticmethod
    def _put_off(served: _Served, fingerprint: str, stale: str) -> None:
        served.tried, served.stale = fingerprint, stale
        served.again_s = time.monotonic() + served.pause_s
        served.pause_s = min(2 * served.pause_s, _AGAIN_LAST_S)

    def _name(self, number: int) -> str:
        return self._servers[number].location.name
