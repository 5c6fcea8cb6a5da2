"""TELL: the status model, as text and as JSON, and the lines that the hook may print."""
