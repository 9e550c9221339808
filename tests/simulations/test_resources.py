"""Peak memory over the whole process tree, and a meter that stops."""

import subprocess
import sys
import threading

import pytest

from collegium.simulations.resources import ResourceMeter


def test_a_child_counts_and_a_spike_is_seen() -> None:
    with ResourceMeter(every_s=0.005) as meter:
        child = "import time; x = bytearray(80_000_000); x[::4096] = b'1' * 19532; time.sleep(0.6)"
        subprocess.run([sys.executable, "-c", child], check=True)
        own = meter._process.memory_info().rss
    assert meter.peak_rss_bytes > own + 60_000_000
    assert meter.seconds > 0
    assert not [thread for thread in threading.enumerate() if thread.name == "meter"]


def test_it_stops_after_an_error() -> None:
    with pytest.raises(RuntimeError), ResourceMeter():
        raise RuntimeError
    assert not [thread for thread in threading.enumerate() if thread.name == "meter"]
