"""Small packages of every shape that a copy must keep: how it is imported, and from where."""

from __future__ import annotations

_WRITE = """
import os
HERE = os.path.dirname(os.path.abspath(__file__))
print('executed', __name__)
if not os.path.exists(HERE + '/{name}.made'):
    open(HERE + '/{name}.made', 'w').close()
"""


def _record(*paths: str) -> str:
    return "".join(f"{path},,\n" for path in paths)


SHAPES: dict[str, str] = {
    # Two packages of one distribution; the one generates a module of the other.
    "twin_a/__init__.py": (
        "import os\nHERE = os.path.dirname(os.path.abspath(__file__))\n"
        "target = os.path.join(os.path.dirname(HERE), 'twin_b', 'generated.py')\n"
        "if not os.path.exists(target):\n    open(target, 'w').write('value = 5')\n"
        "import twin_b, twin_b.generated\nvalue = twin_b.generated.value\n"
    ),
    "twin_b/__init__.py": "",
    "twins-1.0.dist-info/RECORD": _record("twin_a/__init__.py", "twin_b/__init__.py", "twins-1.0.dist-info/RECORD"),
    "twins-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: twins\nVersion: 1.0\n",
    # A portion of a namespace, and its neighbour.
    "spacious/portion/__init__.py": _WRITE.format(name="portion"),
    "spacious/portion/sub.py": "value = 1\n",
    "spacious/neighbour/__init__.py": "value = 2\n",
    # Portions of namespaces that a .pth file makes at each start, as setuptools has written them before and after 2016.
    "legacy-1.0-nspkg.pth": (
        "import sys, types, os;has_mfs = sys.version_info > (3, 5);"
        "p = os.path.join(sys._getframe(1).f_locals['sitedir'], *('legacy_space',));"
        "importlib = has_mfs and __import__('importlib.util');has_mfs and __import__('importlib.machinery');"
        "m = has_mfs and sys.modules.setdefault('legacy_space', importlib.util.module_from_spec("
        "importlib.machinery.PathFinder.find_spec('legacy_space', [os.path.dirname(p)])));"
        "m = m or sys.modules.setdefault('legacy_space', types.ModuleType('legacy_space'));"
        "mp = (m or []) and m.__dict__.setdefault('__path__',[]);(p not in mp) and mp.append(p)\n"
    ),
    "oldest-1.0-nspkg.pth": (
        "import sys, types, os;p = os.path.join(sys._getframe(1).f_locals['sitedir'], *('oldest_space',));"
        "m = sys.modules.setdefault('oldest_space', types.ModuleType('oldest_space'));"
        "mp = (m or []) and m.__dict__.setdefault('__path__',[]);(p not in mp) and mp.append(p)\n"
    ),
    "legacy_space/portion/__init__.py": _WRITE.format(name="portion"),
    "legacy_space/neighbour/__init__.py": "value = 2\n",
    "oldest_space/portion/__init__.py": _WRITE.format(name="portion"),
    "oldest_space/neighbour/__init__.py": "value = 2\n",
    # Bytecode without sources.
    "bare/__init__.py": _WRITE.format(name="bare"),
    "bare_beside.py": _WRITE.format(name="bare_beside"),
    "bare_use.py": (
        "import os\ndef use():\n    open(os.path.join(os.path.dirname(__file__), 'bare_use.made'), 'w').close()\n"
    ),
    # A module of one file.
    "solo.py": _WRITE.format(name="solo"),
    # A package that is imported by another one, and a third that imports both.
    "inner/__init__.py": _WRITE.format(name="inner"),
    "outer/__init__.py": "print('executed', __name__)\nimport inner\nfrom inner import HERE\n",
    # A package whose directory another one writes into.
    "fontish/__init__.py": "import os\ndef folder():\n    return os.path.dirname(os.path.abspath(__file__))\n",
    "fontish/tables.py": "",
    "fontish/fonts/a.ttf": "font",
    "font_user/__init__.py": (
        "import fontish, fontish.tables, os\nprint('executed', __name__)\n"
        "open(os.path.join(fontish.folder(), 'fonts', 'list.json'), 'a').close()\n"
    ),
    # Data files, a subpackage, resources; it writes at import.
    "resourceful/__init__.py": _WRITE.format(name="resourceful") + "from .sub import thing\n",
    "resourceful/sub/__init__.py": "def thing():\n    return 'thing'\nclass Box:\n    pass\n",
    "resourceful/data.txt": "data",
    "resourceful/__main__.py": "import resourceful\nprint('main', __file__, resourceful.__file__)\n",
    # Fails whatever one does; its sources write beside themselves.
    "hopeless/__init__.py": (
        "import os\nprint('executed', __name__)\n"
        "def cache():\n    os.makedirs(os.path.join(os.path.dirname(__file__), 'cache'), exist_ok=True)\n"
        "if not hasattr(os, 'first'):\n    os.first = True\n    cache()\n"
        "raise LookupError('no such luck')\n"
    ),
    # Fails for reasons that no copy cures; both write beside themselves elsewhere in the code.
    "lacking/__init__.py": (
        "import os\nprint('executed', __name__)\ndef f():\n    open(os.path.dirname(__file__) + '/x', 'w')\n"
        "import not_installed_anywhere\n"
    ),
    "clean/__init__.py": "print('executed', __name__)\nraise ValueError('mine')\n",
    # Leaves traces before it fails.
    "half/__init__.py": (
        "import half.early, os\nfrom half import early\nassert early.count == 1, early.count\n"
        "leftover = globals().get('flag')\nassert leftover is None\nflag = True\n"
        "open(os.path.join(os.path.dirname(__file__), 'half.made'), 'w').close()\nimport half.late\n"
    ),
    "half/early.py": "count = globals().get('count', 0) + 1\n",
    "half/late.py": "from half import flag\n",
    # Writes in a thread, at first use.
    "threaded/__init__.py": (
        "import os, threading\ndef work():\n    open(os.path.join(os.path.dirname(__file__), 't.made'), 'w').close()\n"
        "def use():\n    t = threading.Thread(target=work); t.start(); t.join()\n"
    ),
    # Passes on an error of a worker process; it writes beside itself, but elsewhere.
    "unconcerned/__init__.py": (
        "import os\ndef again(text):\n    raise RuntimeError(text)\n"
        "def cache():\n    open(os.path.join(os.path.dirname(__file__), 'x'), 'w')\n"
    ),
    # Writes to places of no package.
    "outsider/__init__.py": "",
    "outsider/use.py": "import os, sys\nos.mkdir(os.path.join(sys.prefix, 'outsider'))\n",
    "logger_of_system/__init__.py": "def use():\n    open('/usr/tool.log', 'w')\n",
    # Imports well, and is large.
    **{f"large/part{number}.py": f"value = {number}\n" + "# filler\n" * 400 for number in range(300)},
    "large/__init__.py": _WRITE.format(name="large"),
    "quiet/__init__.py": "from quiet.sub import value\n",
    "quiet/sub.py": "value = 3\n",
}
BARE = ("bare/__init__.py", "bare_beside.py", "bare_use.py")
"""Those of which only the bytecode is installed."""
