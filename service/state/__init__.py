"""What survives a crash: the journal, the fence, the spool, set-aside batches, and the lock on STATE_DIR."""
