"""The worker's process: what its end tells."""

from __future__ import annotations

import signal
import subprocess
import sys


def test_an_abort_in_c_code_says_where_it_was() -> None:
    """RocksDB or librdkafka may abort the process: its log names the Python line that had called it."""
    program = "import os, milepost.agents.__main__ as m; m.build = lambda settings: os.abort(); m.main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in done.stderr
    assert "in main" in done.stderr
