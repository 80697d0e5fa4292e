"""Commands of ours in processes of their own, which start quickly and can be killed or starved.

A server imports what is heavy once and forks; what a command prints is kept in a file.
"""

import errno
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
HEAVY = "torch timm pandas pyarrow.parquet fss_bench.cli fss_bench.evaluation".split()
HEAVY += "fss_bench.methods.panet fss_bench.datasets.shapes fss_bench.report.console".split()
SERVER.set_forkserver_preload(HEAVY)
LONGEST = 1800.0
"""Seconds after which a command is taken to hang."""
NUMBERS = count()
MET = b"[a file operation fails]\n"


@dataclass(frozen=True)
class Hindrance:
    """What a command meets.

    Attributes:
        fail_at: number of the file operation below `below` that fails; 0 for none.
        error: with which error.
        below: a folder.
        largest_file: bytes; what is written beyond fails.
    """

    fail_at: int = 0
    error: int = errno.ENOSPC
    below: str = ""
    largest_file: int = 0


@dataclass
class Command:
    """A started command; `words` as on the command line, or a function to call.

    Attributes:
        log: the file with what it prints.
    """

    words: list[str] | Callable[[], object]
    log: Path
    hindrance: Hindrance = field(default_factory=Hindrance)
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.log = self.log / f"log-{next(NUMBERS)}.txt"
        arguments = (self.words, self.log, self.hindrance, {**_cache(), **self.environment})
        self._process = SERVER.Process(target=_run, args=arguments)
        self._process.start()

    @property
    def running(self) -> bool:
        return self._process.exitcode is None

    def send(self, number: signal.Signals) -> None:
        """A signal, if it still runs."""
        if self.running and self._process.pid:
            os.kill(self._process.pid, number)

    def status(self) -> int:
        """Its exit status, or a signal's number less than 0; waits for it."""
        self._process.join(LONGEST)
        if self._process.exitcode is None:
            self._process.kill()
            raise TimeoutError(f"{self.words} hangs: {self.text}")
        return self._process.exitcode

    @property
    def text(self) -> str:
        """What it printed so far."""
        printed = self.log.read_bytes() if self.log.exists() else b""
        return printed.replace(MET, b"").decode()

    @property
    def met(self) -> bool:
        """Whether the file operation came that was to fail."""
        return MET in self.log.read_bytes()

    def wait(self, ready: Callable[[], bool]) -> bool:
        """Until something is so; whether it still runs then."""
        start = time.monotonic()
        while self.running and not ready():
            if time.monotonic() - start > LONGEST:
                raise TimeoutError(f"{self.words}: {self.text}")
            time.sleep(0.002)
        return self.running


def _cache() -> dict[str, str]:
    """The server may be older than what a test set."""
    return {name: os.environ[name] for name in ("FSS_BENCH_CACHE",) if name in os.environ}


def _run(
    words: list[str] | Callable[[], object], log: Path, hindrance: Hindrance, env: dict[str, str]
) -> None:
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with log.open("w", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    multiprocessing.set_start_method("fork", force=True)  # as it is outside of this server
    import torch

    torch.set_num_threads(1)
    _hinder(hindrance)
    if callable(words):
        words()
        return
    from fss_bench.cli import main

    sys.argv = ["fss-bench", *words]
    main()


def _hinder(hindrance: Hindrance) -> None:
    if hindrance.largest_file:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hindrance.largest_file, limit))
    if not hindrance.fail_at:
        return
    done, sync = count(1), os.fsync

    def meet(path: object) -> None:
        if os.fsdecode(path).startswith(hindrance.below) and next(done) == hindrance.fail_at:
            os.write(2, MET)
            raise OSError(hindrance.error, os.strerror(hindrance.error), path)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR) if mode is None else set(mode) & set("wax+")
            if writes and isinstance(path, str | bytes | os.PathLike):
                meet(path)
        elif event in ("os.rename", "os.mkdir", "os.link", "os.symlink"):
            meet(arguments[0])

    def failing_sync(descriptor: int) -> None:
        opened = Path(f"/proc/self/fd/{descriptor}")
        if opened.exists():
            meet(opened.readlink())
        sync(descriptor)

    os.fsync = failing_sync
    sys.addaudithook(watch)
