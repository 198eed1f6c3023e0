"""The three commands: arguments in, calls out."""
