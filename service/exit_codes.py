"""What the process says when it ends. Numbers from 64 on follow BSD's sysexits."""

from __future__ import annotations

#: Done, or stopped as asked while streaming.
DONE = 0

#: Checked, and something does not agree; said by `scripts/state.py verify`.
DISAGREEMENT = 1

#: The running service was asked by `--health` and says that data does not flow, or does not answer.
NOT_READY = 1

#: The command line was not understood.
USAGE = 64

#: Done, but an output refused rows, which were set aside.
SET_ASIDE = 65

#: A server or an API could not be reached within RETRY_BUDGET_SECONDS.
UNREACHABLE = 69

#: A batch failed verification and was withheld.
VERIFICATION_FAILED = 70

#: What a script prints could not be written, such as on a disk that is full.
OUTPUT_LOST = 74

#: Another instance works on the same state folder.
ANOTHER_INSTANCE = 75

#: A setting is wrong, or a server refuses us because of one.
CONFIGURATION = 78

#: A one-shot run was interrupted before its end: by the end of its terminal, by Ctrl+C, by SIGTERM.
HUNG_UP, INTERRUPTED, TERMINATED = 129, 130, 143
