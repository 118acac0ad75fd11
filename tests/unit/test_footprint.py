"""What a worker says it uses is what the kernel says of it and of all that it has begun."""

import os
import subprocess
import sys
import time

from dagster_taskiq_kit.host.process_group import wait_until
from dagster_taskiq_kit.worker.footprint import Footprint

MIB = 1024 * 1024
#: Holds memory of its own, has a child that does too, and burns processor time.
HOLDS = """
import subprocess, sys, time
held = bytearray(b"x" * (80 * 2**20))
child = subprocess.Popen([sys.executable, "-c",
    "import time; held = bytearray(b'x' * (40 * 2**20)); print('held', flush=True); time.sleep(600)"])
until = time.process_time() + 0.5
while time.process_time() < until:
    pass
print("burnt", flush=True)
time.sleep(600)
"""


def test_a_footprint_is_of_the_process_and_all_below_it_and_tells_each_message_apart():
    footprint = Footprint()
    footprint.look({})
    before = footprint.memory_bytes
    holder = subprocess.Popen([sys.executable, "-c", HOLDS], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert {holder.stdout.readline().strip() for _ in range(2)} == {"held", "burnt"}

        def seen() -> bool:
            footprint.look({"step:r:a:1": holder.pid, "step:r:gone:1": 2**22})
            return "step:r:a:1" in footprint.using

        assert wait_until(seen, 120)
        used = footprint.using["step:r:a:1"]
        assert 120 * MIB < used.memory_bytes < 200 * MIB
        assert 0.5 <= used.cpu_s < 60
        assert footprint.memory_bytes - before > 100 * MIB
        assert footprint.busy_cpus > 0
        assert "step:r:gone:1" not in footprint.using
        said = footprint.on_card()
        assert said["memory_bytes"] == footprint.memory_bytes
        assert abs(said["began_s"] - time.time()) < 600
    finally:
        os.system(f"pkill -P {holder.pid}")
        holder.kill()
        holder.wait()
        holder.stdout.close()
