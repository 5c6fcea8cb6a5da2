"""Packages that are known to write into their own directory, mostly at first use and often in silence.

Read when an image meets its storage for the first time, never at an ordinary start. A package that fails at import
needs no row: its failure shows it. A row saves the failing try.
"""

WRITERS: "tuple[tuple[str, str, str], ...]" = (
    ("bioregistry", "makes lib/python3.x/exports beside site-packages at import", "bioregistry 0.6.2"),
    ("hcl2", "pickles its grammar into .lark_cache.bin, in silence", "amplify-education/python-hcl2#8"),
    ("nnsight", "appends to the nnsight.log that it ships", "ndif-team/nnsight#495"),
    ("openbb", "regenerates its own modules at import", "openbb 5.0.0: .build.lock, package/, assets/"),
    ("psf_utils", "PLY writes parsetab.py and parser.out beside the grammar", "KenKundert/psf_utils#6"),
    (
        "pycocoevalcap.tokenizer.ptbtokenizer",
        "hands temporary files beside its jar to java by their bare names",
        "pycocoevalcap 1.2",
    ),
    ("pytube", "keeps tokens in __cache__", "pytube 15.0.0: innertube.py"),
    ("rlcard", "unpacks jsondata.zip beside the game that needs it", "rlcard 1.2.0"),
    ("sentinelhub", "keeps the user's settings in config.json (up to 3.8)", "sentinelhub 3.4.4: config.py"),
    ("skyfield", "callers keep ephemerides in its ../data", "GIFTs: swaDecoder"),
    ("splink", "makes __splinkdata_cache__ at import (4.x)", "moj-analytical-services/splink#2356"),
    ("twisted", "writes plugins/dropin.cache", "Twisted 26.10: plugin.py"),
    ("webbot", "makes its own driver executable", "webbot 0.34"),
)
"""(name as in ``import NAME``, what it writes, where that was seen)."""
