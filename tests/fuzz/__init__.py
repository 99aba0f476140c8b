"""Mutated files put to reader, model and command: `python -m tests.fuzz --runs N --seed S`.

seeds     the files that are mutated, and the ways in which a file reaches dlwhy
mutators  what is done to them
stage     one file, one way: the answer, and what is wrong with it
campaign  many of them, blind or guided by coverage, and each finding made small
"""
