"""Tuning: which trials are run, in what order, and what they show.

`protocol` reads what is to be tried, `design` turns it into trials, `search` asks Optuna, `tune` runs trials and keeps
them in trials.csv, `budget` looks for the smallest budget; `analysis`, `plots` and `report` say what trials.csv shows.
"""
