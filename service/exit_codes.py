"""Exit codes. Numbers from 64 on follow BSD's sysexits."""

from __future__ import annotations

#: Done, or stopped on request while streaming.
DONE = 0

#: A command that checks (`state.py verify`, `verify_output.py`, `check_audit_log.py`, `validate_heart.py`) found something.
DISAGREEMENT = 1

#: `state.py erase`: nothing of the source was found, or rows of it are known to be out of reach.
NOT_ERASED = 1

#: `--health`: the running service reports that data does not flow, or does not answer.
NOT_READY = 1

#: The command line is wrong.
USAGE = 64

#: Done, but an output refused rows, which were set aside.
SET_ASIDE = 65

#: A server or an API could not be reached within RETRY_BUDGET_SECONDS.
UNREACHABLE = 69

#: A batch failed verification and was withheld.
VERIFICATION_FAILED = 70

#: A script's output could not be written, such as on a full disk.
OUTPUT_LOST = 74

#: Another instance uses the same state folder.
ANOTHER_INSTANCE = 75

#: A setting is wrong, or a server refuses the service because of one.
CONFIGURATION = 78

#: A one-shot run was interrupted: by the loss of its terminal, by Ctrl+C, by SIGTERM.
HUNG_UP, INTERRUPTED, TERMINATED = 129, 130, 143
