"""Rehearsals: a task's whole course on text at hand, so that no node is rented to find a typo."""
