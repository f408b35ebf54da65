"""The report of a run, for a privacy officer to read and sign: the promises, whether they were kept, and what was withheld."""
