"""Readers of samples (databases, files, data sets), and of what outputs already hold.

An input may import the core's samples and its own library, never an output or the service.
"""

import pyarrow as pa

# While it parses, Arrow would catch the signals that stop the service, and abort the read instead.
pa.enable_signal_handlers(False)
