"""The settings: declared, parsed, loaded, checked and shown."""
