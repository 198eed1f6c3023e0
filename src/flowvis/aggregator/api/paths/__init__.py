"""What the API has: a module for each noun, which gives its routes."""
