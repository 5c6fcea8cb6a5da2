"""Real parts for tests: Apptainer, images, read-only roots, interpreters, each made once and kept below `.lab/`.

One module answers one question; `python -m tests.lab` uses them by hand.
"""
