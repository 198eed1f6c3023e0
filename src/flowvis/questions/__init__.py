"""What people ask of the store, as statements and answers: no I/O, no clock.

A question is read from query parameters (`question`), with errors that name the parameter. A plan
is a generator that yields statements and is sent what the store answered (`plan`); its last word is
the answer. So whoever has a store drives it, and a test may drive it with made-up results.
"""
