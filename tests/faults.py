"""Faults that are injected on purpose, with what is promised of each.

A case is a number: it decides the moment and the kind. Its outcome says how often something was
injected, and what happened in place of what is promised: nothing, if all is well.
"""

import signal
from functools import partial
from pathlib import Path

from fault_lab import SAME, WRITERS, Fault, Lab, Outcome
from faults_of_files import archive_breaks_out, download_disturbed, journal_damaged, score_changed
from faults_of_runs import (
    board_killed,
    data_vanishes,
    file_too_large,
    full_disk,
    killed,
    many_writers,
    one_index,
    operation_fails,
    same_command,
    stopped,
)


def logits_not_finite(lab: Lab, number: int, root: Path) -> Outcome:
    """Imports torch only when it is called: the list of faults needs none."""
    from faults_of_logits import logits_not_finite

    return logits_not_finite(lab, number, root)


REFUSED = "one line and status 2, or it is not needed; " + SAME
FAULTS = (
    Fault("SIGKILL at a random moment of an evaluation", f"no record is lost; {SAME}", killed, 10),
    Fault("SIGTERM", f"status 130; {SAME}", partial(stopped, signal.SIGTERM), 12),
    Fault("Ctrl-C", f"status 130; {SAME}", partial(stopped, signal.SIGINT), 12),
    Fault(
        "SIGKILL while leaderboards are written",
        "the old or the new leaderboard; the next update is whole and leaves nothing behind",
        board_killed,
        40,
    ),
    Fault("a file operation fails", REFUSED, operation_fails, 60),
    Fault("a file may not grow", REFUSED, file_too_large, 20),
    Fault("the disk is full", REFUSED, full_disk, 16),
    Fault("the data vanish in the middle", REFUSED, data_vanishes, 12),
    Fault("one command, four at a time", f"one works, others say so; {SAME}", same_command, 8),
    Fault("six processes index one tree", "one index, one answer", one_index, 8),
    Fault(WRITERS, "the leaderboard of one writer", many_writers, 1),
    Fault(
        "logits that are NaN or infinite",
        "the run stops in one line and keeps the input, or counts the episode as wrong everywhere",
        logits_not_finite,
        40,
    ),
    Fault(
        "a byte of a journal changes",
        "records before it are kept, it and what follows is done again",
        journal_damaged,
        3000,
    ),
    Fault("a digit of a score changes", "the run is refused in one line", score_changed, 2000),
    Fault(
        "a server cuts, stalls, lies about lengths, redirects, sends other bytes",
        "one line, no other bytes in the file's place; when it serves well, the right bytes",
        download_disturbed,
        600,
    ),
    Fault(
        "an archive's members lead elsewhere",
        "one line, or files in the archive's own folder; nothing outside, no links",
        archive_breaks_out,
        10_000,
    ),
)
