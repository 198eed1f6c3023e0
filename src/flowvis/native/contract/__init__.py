"""What the compiled leaves, their references and those who call them share."""
