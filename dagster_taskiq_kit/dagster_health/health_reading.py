"""One reading of everything that health knows: broker, queues, workers and runs, with the verdicts.

Invariant: it ends within a bound and never raises for an absent broker; that is a finding.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from ..broker.connection import SyncConnection
from ..config.settings import TaskiqSettings
from ..health.findings import Finding
from ..health.rules import judge, judge_absence
from ..health.snapshot import Snapshot, read_snapshot
from ..vocabulary.errors import BrokerError
from .run_health import RunHealth, read_run_health
from .run_verdict import judge_runs

#: A check that somebody waits for, and a sensor's tick, give up on the broker after this.
GIVE_UP_S = 3.0


@dataclass(frozen=True)
class HealthReading:
    """What is true and what it means.

    Args:
        snapshot: Queues, workers and server; None when the broker did not answer.
        runs: Dagster's open runs; None when no instance was asked.
        findings: The verdict of each rule.
    """

    snapshot: Snapshot | None
    runs: RunHealth | None
    findings: Sequence[Finding]

    def of(self, subject: str) -> Sequence[Finding]:
        """Return the findings on one subject."""
        return [finding for finding in self.findings if finding.subject == subject]

    @property
    def by_check(self) -> Mapping[tuple[str, str], Finding]:
        """The findings by subject and check."""
        return {(finding.subject, finding.check): finding for finding in self.findings}


def read_health(
    settings: TaskiqSettings,
    instance: dg.DagsterInstance | None = None,
    *,
    no_progress_s: float | None = None,
) -> HealthReading:
    """Read the health of a deployment.

    Args:
        settings: The deployment.
        instance: The Dagster instance whose runs are looked at; None to leave them out.
        no_progress_s: As for :func:`~.run_health.read_run_health`; default what the health sensor
            goes by.

    Raises:
        ConfigurationError: No broker url is configured.
    """
    hasty = settings.model_copy(
        update={
            "connect_timeout_s": min(settings.connect_timeout_s, GIVE_UP_S),
            "command_timeout_s": min(settings.command_timeout_s, GIVE_UP_S),
            "give_up_s": min(settings.give_up_s, GIVE_UP_S),
        }
    )
    with contextlib.closing(SyncConnection(hasty)) as connection:
        snapshot, findings = _read(connection, settings)
        if instance is None:
            return HealthReading(snapshot, None, findings)
        if no_progress_s is None and snapshot is not None:
            no_progress_s = snapshot.judging.get("no_progress_s")
        try:
            runs = read_run_health(instance, connection, snapshot, no_progress_s=no_progress_s)
        except BrokerError as error:
            snapshot, findings = None, judge_absence(str(error))
            runs = read_run_health(instance, connection, None)
        return HealthReading(snapshot, runs, [*findings, judge_runs(runs)])


def _read(
    connection: SyncConnection, settings: TaskiqSettings
) -> tuple[Snapshot | None, Sequence[Finding]]:
    try:
        snapshot = read_snapshot(connection)
    except BrokerError as error:
        return None, judge_absence(str(error))
    return snapshot, judge(snapshot, settings)


def completed_by_environment(settings: TaskiqSettings | None) -> TaskiqSettings:
    """Return the settings, with what they leave open from this process's environment.

    Raises:
        ConfigurationError: The environment holds a bad value.
    """
    return TaskiqSettings.resolve(settings.model_dump(exclude_unset=True) if settings else None)
