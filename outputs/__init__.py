"""Where batches go: one file for each kind of destination. See README.md here for how to add one."""
