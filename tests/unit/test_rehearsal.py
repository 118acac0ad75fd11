"""The rehearsal gets through whole steps; what it does wrong it keeps to itself."""

import subprocess
import sys

PROGRAM = """
from dagster_taskiq_kit.worker.process import rehearsal, wire
said = []
send = wire.Wire.send_undisturbed
def noting(self, *packets):
    said.extend(packets)
    return send(self, *packets)
wire.Wire.send_undisturbed = noting
rehearsal.rehearse()
print([packet.outcome for packet in said if type(packet).__name__ == "Done"])
"""


def test_each_rehearsed_step_succeeds():
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert said[-1] == str(["succeeded"] * 20)
