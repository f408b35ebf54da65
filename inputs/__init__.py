"""Where samples come from: databases, files, data sets; and what outputs hold, read back.

An input knows the core's samples and its own library, never an output or the service.
"""

import pyarrow as pa

# While it parses, Arrow would catch the signals that ask the service to stop, and break off the read instead.
pa.enable_signal_handlers(False)
