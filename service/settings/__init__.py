"""What was asked for: the settings, how they are read, checked and shown."""
