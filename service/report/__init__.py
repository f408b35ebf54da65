"""The report of a run, for somebody to read and to sign: what was promised, for which times, was it kept, what was withheld."""
