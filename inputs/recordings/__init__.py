"""Recordings in files of the field (EDF, BDF, WFDB, DICOM): which files there are, and one channel's samples of each."""
