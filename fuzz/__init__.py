"""Harnesses for what reads bytes of others: any input is taken or refused, in order.

`python -m fuzz NAME` runs one under atheris (`pip install atheris`) for as long as wanted,
beginning with its corpus; the tests run a fixed number of damaged inputs of it, without atheris.
"""
