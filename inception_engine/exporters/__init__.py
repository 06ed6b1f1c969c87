"""Network -> other formats."""
