"""Processes that load images end with the process they load for."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import os, sys, time
from torch.utils.data import DataLoader, Dataset
from fss_bench.workers import loading_worker

class Endless(Dataset):
    def __len__(self): return 10**6
    def __getitem__(self, i): return os.getpid()

if __name__ == "__main__":
    loader = DataLoader(
        Endless(), batch_size=None, num_workers=2, worker_init_fn=loading_worker,
        multiprocessing_context=sys.argv[1],
    )
    rows = iter(loader)
    print(next(rows), next(rows), flush=True)
    time.sleep(60)
"""


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "forkserver"])
def test_workers_end_when_the_main_process_is_killed(tmp_path: Path, start: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    with subprocess.Popen(
        [sys.executable, program, start], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        workers = [int(word) for word in process.stdout.readline().split()]
        assert len(set(workers)) == 2
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(map(is_alive, workers)):
        assert time.monotonic() < deadline, "workers live on"
        time.sleep(0.1)
