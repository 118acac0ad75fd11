"""A run as its event log tells it, in the form in which two runs are compared.

Invariant: whatever Dagster says of a step is compared, except what it says only when steps have
processes of their own.
"""

from dataclasses import dataclass

import dagster as dg

KIND = dg.DagsterEventType
_ONLY_OF_PROCESSES = {
    KIND.STEP_WORKER_STARTING,
    KIND.STEP_WORKER_STARTED,
    KIND.RESOURCE_INIT_STARTED,
    KIND.RESOURCE_INIT_SUCCESS,
    KIND.RESOURCE_INIT_FAILURE,
    KIND.LOGS_CAPTURED,
    KIND.ENGINE_EVENT,
}
_BEGINS = {KIND.STEP_START, KIND.STEP_RESTARTED}
_ENDS = {KIND.STEP_SUCCESS, KIND.STEP_FAILURE, KIND.STEP_UP_FOR_RETRY}
_RUN_ENDS = {KIND.RUN_SUCCESS, KIND.RUN_FAILURE, KIND.RUN_CANCELED}


@dataclass(frozen=True)
class Observed:
    """A run that is over.

    Args:
        instance: Its instance.
        run: The run.
        entries: Its Dagster events, in order.
    """

    instance: dg.DagsterInstance
    run: dg.DagsterRun
    entries: list[dg.EventLogEntry]

    @classmethod
    def of(cls, instance, run_id):
        """Read a run."""
        entries = [entry for entry in instance.all_logs(run_id) if entry.dagster_event]
        return cls(instance, instance.get_run_by_id(run_id), entries)

    def of_step(self, step_key, *kinds):
        """Return a step's entries of some kinds."""
        return [
            entry
            for entry in self.entries
            if entry.step_key == step_key and entry.dagster_event.event_type in kinds
        ]

    def story(self):
        """Return the types of its events for each step, in order.

        Hooks of an attempt that is retried run in its process, beside the next attempt: theirs come
        last for a step with two of them.
        """
        story = {}
        for entry in self.entries:
            kind = entry.dagster_event.event_type
            if entry.step_key is not None and kind not in _ONLY_OF_PROCESSES:
                story.setdefault(entry.step_key, []).append(kind.value)
        for step_key, kinds in story.items():
            if KIND.STEP_RESTARTED.value in kinds:
                hooks = sorted(kind for kind in kinds if kind.startswith("HOOK_"))
                others = [kind for kind in kinds if not kind.startswith("HOOK_")]
                story[step_key] = [*others, *hooks]
        return story

    def after_its_end(self):
        """Return what was said of steps after the run had ended."""
        kinds = [entry.dagster_event.event_type for entry in self.entries]
        (end,) = [index for index, kind in enumerate(kinds) if kind in _RUN_ENDS]
        late = Observed(self.instance, self.run, self.entries[end:])
        return late.story()

    def spans(self, step_key):
        """Return when each attempt of a step began and ended."""
        begins = [entry.timestamp for entry in self.of_step(step_key, *_BEGINS)]
        ends = [entry.timestamp for entry in self.of_step(step_key, *_ENDS)]
        assert begins, f"step {step_key} never began"
        assert len(begins) == len(ends), f"step {step_key} has an attempt without an end"
        return list(zip(begins, ends, strict=True))

    def workers(self):
        """Return which workers took steps, and the keys of the steps they took."""
        took = [
            entry
            for entry in self.entries
            if entry.dagster_event.event_type is KIND.STEP_WORKER_STARTED
            and "worker" in entry.dagster_event.event_specific_data.metadata
        ]
        workers = {
            entry.dagster_event.event_specific_data.metadata["worker"].value for entry in took
        }
        return workers, {entry.step_key for entry in took}

    def begun(self):
        """Return the keys of the steps of which user code began."""
        return {
            entry.step_key
            for entry in self.entries
            if entry.dagster_event.event_type is KIND.STEP_START
        }

    def said(self, step_key):
        """Return what a step and its children wrote to stdout, and those lines on stderr.

        Dagster's own log lines on stderr carry times and ids; they are left out.
        """
        (captured,) = [
            entry.dagster_event.logs_captured_data
            for entry in self.entries
            if entry.dagster_event.event_type is KIND.LOGS_CAPTURED
            and step_key in entry.dagster_event.logs_captured_data.step_keys
        ]
        store = self.instance.compute_log_manager
        key = store.build_log_key_for_run(self.run.run_id, captured.file_key)
        data = store.get_log_data(key)
        stderr = [line for line in data.stderr.splitlines() if line.startswith(b"said: ")]
        return data.stdout, stderr
