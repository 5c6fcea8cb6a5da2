"""A library as there are many, careless on purpose: it was never tried in an image that cannot be written.

It writes its settings beside its own source when it is imported and they are missing, and it keeps what it compiles
in a place below /tmp that nobody can change. It knows nothing of containers.
"""

from __future__ import annotations

import configparser
import os

CONFIG = os.path.join(os.path.dirname(os.path.abspath(__file__)), "config.ini")
"""The settings of this installation."""

settings = configparser.ConfigParser()
if not settings.read(CONFIG):
    settings["kernel"] = {"terms": "1000"}
    with open(CONFIG, "w", encoding="utf-8") as _file:
        settings.write(_file)
