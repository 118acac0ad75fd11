"""A crowd on a broker: workers, queues and messages, made by the calls that workers themselves make."""

import time
import uuid
from collections.abc import Sequence

from dagster_taskiq_kit.broker import records, worker_cards
from dagster_taskiq_kit.broker.connection import SyncConnection
from dagster_taskiq_kit.broker.records import NothingWaits
from dagster_taskiq_kit.broker.worker_cards import Holding, WorkerCard
from dagster_taskiq_kit.config.settings import TaskiqSettings
from dagster_taskiq_kit.host.boot_time import boot_time_s
from dagster_taskiq_kit.vocabulary.messages import CodeName, StepMessage, encode
from dagster_taskiq_kit.vocabulary.states import Kind

#: Nobody renews for these: they live for as long as a test takes.
LEASE_S = 3_600.0


class Crowd:
    """Workers that hold messages, and messages that wait.

    Args:
        settings: The deployment.
    """

    def __init__(self, settings: TaskiqSettings) -> None:
        self.connection = SyncConnection(settings)
        self.cards: dict[str, WorkerCard] = {}
        self._held: dict[str, dict[str, Holding]] = {}

    def submit(self, queue: str, step_key: str, job: str = "nightly") -> StepMessage:
        """Queue a step of a new run."""
        message = StepMessage(
            str(uuid.uuid4()), step_key, 1, CodeName(job, location="code"), "DISABLED", "{}"
        )
        self.connection.run(
            records.submit(
                task_id=message.task_id, kind=Kind.STEP, queue=queue, priority=0,
                run_id=message.run_id, payload=encode(message),
            )
        )  # fmt: skip
        return message

    def add_worker(self, name: str, queues: Sequence[str], slots: int, busy: int) -> None:
        """Add a worker that takes and begins messages, as many as it is busy with."""
        worker_id = f"{name}-{uuid.uuid4().hex[:8]}"
        self._held[worker_id] = {}
        self.cards[worker_id] = WorkerCard(
            worker_id, name, f"host-{name}", 4711, list(queues), slots, 2, ["code"],
            busy_slots=busy, dagster_version="1.13.27", clock_s=time.time(), boot_s=boot_time_s(),
            began_s=time.time() - 7_200, succeeded=12, failed=1, memory_bytes=734_003_200,
            busy_cpus=0.7,
        )  # fmt: skip
        self.renew(worker_id)
        for _ in range(busy):
            self._begin_one(worker_id, queues)
        self.renew(worker_id)

    def renew(self, worker_id: str, lease_s: float = LEASE_S) -> None:
        """Renew a worker's lease."""
        card = self.cards[worker_id]
        self.connection.run(worker_cards.renew(card, lease_s, self._held[worker_id], ""))

    def _begin_one(self, worker_id: str, queues: Sequence[str]) -> None:
        token = uuid.uuid4().hex
        claim = records.claim(
            worker_id=worker_id, lane="steps", token=token, kinds=[Kind.STEP], queues=queues,
            oldest_first=False,
        )  # fmt: skip
        taken = self.connection.run(claim)
        assert not isinstance(taken, NothingWaits), "nothing waits for it"
        assert self.connection.run(records.begin(taken.task_id, token)) == "ok"
        self._held[worker_id][taken.task_id] = Holding(token, began=True)


def of_200_workers(crowd: Crowd) -> None:
    """Make 50 queues, 200 workers, 1,000 messages that run and 300 that wait."""
    queues = [f"queue-{number:02}" for number in range(50)]
    for number in range(1_300):
        crowd.submit(queues[number % 50], f"step_{number}", job=f"job_{number % 7}")
    for number in range(200):
        crowd.add_worker(f"worker-{number:03}", [queues[number % 50]], slots=8, busy=5)
