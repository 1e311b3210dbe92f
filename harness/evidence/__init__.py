"""Evidence: campaigns of runs under a plan fixed beforehand, races, calibrations and records.

`arms` says what a word on the command line names; `plans` what a campaign is on paper; `course` what was run and what
is next; `folder` how both lie on disk; `series` does the runs. On these stand `race` and `calibration`.
"""
