"""Where samples come from. An input knows the core's samples and its own library; never an output or the service."""
