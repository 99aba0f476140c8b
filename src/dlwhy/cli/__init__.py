"""The command: a thin user of the library, and the only place that prints or exits."""
