"""How engines start, and what is there to be seen."""
