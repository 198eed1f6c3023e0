"""What writes generated files: run by `make docs`, not part of the package."""
