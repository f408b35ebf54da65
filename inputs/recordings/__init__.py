"""Recordings in medical file formats (EDF, BDF, WFDB, DICOM): finds the files and reads one channel of each."""
