"""The report of a run, for a privacy officer to read and sign: what was promised, when, whether it was kept, what was withheld."""
