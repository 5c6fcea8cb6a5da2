"""Packages that write into their own directory import and keep working, and what they wrote is there the next time."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.conftest import NOT_RUN
from tests.lab.environments import PYTHON
from tests.lab.ways import IMPORT, WAYS

if TYPE_CHECKING:
    from tests.lab.ways import Way
    from tests.lab.writing_image import Image

SP = "site-packages"
OBJECT_CODE = """
struct found { const char *file; void *base, *name, *address; };
int dladdr(const void *, struct found *), open(const char *, int, ...);
unsigned long strlen(const char *);
void *memcpy(void *, const void *, unsigned long), *PyErr_SetFromErrnoWithFilename(void *, const char *);
void *PyModule_Create2(void *, int);
extern void *PyExc_OSError;
static long definition[16] = {1, 0, 0, 0, 0};
static const char name[] = "objective";
void *PyInit_objective(void) {
    struct found here; char path[4096]; unsigned long length;
    dladdr((void *)PyInit_objective, &here);
    length = strlen(here.file) - 3;
    memcpy(path, here.file, length); memcpy(path + length, ".made", 6);
    if (open(path, 0101, 0644) < 0) return PyErr_SetFromErrnoWithFilename(PyExc_OSError, path);
    definition[5] = (long)name; definition[7] = -1;
    return PyModule_Create2(definition, 1013);
}
"""
"""An extension module that makes a file beside itself when it is imported, without the headers that it would need."""
_PROMISE = "from the next run on"
_WRITES = "writes into its own directory, which cannot be written here; from the next run on it is imported from a"


def _by_name(way: Way) -> str:
    return way.name


# --- Every way of writing ---


@pytest.mark.parametrize("way", [way for way in WAYS if way.when == IMPORT and way.reports], ids=_by_name)
def test_a_write_at_import_works_at_the_first_run(one_image: Image, way: Way) -> None:
    assert one_image.says(f"import {way.name}") == "made\n"
    assert one_image.has(way.made)
    assert one_image.says(f"import {way.name}") == ""


@pytest.mark.parametrize("way", [way for way in WAYS if way.when != IMPORT and way.reports], ids=_by_name)
def test_a_write_at_first_use_works_at_the_second_run(one_image: Image, way: Way) -> None:
    program = f"import {way.name}; {way.name}.use()"
    first = one_image.run(program)
    assert first.returncode == 1
    (ours,) = (line for line in first.stderr.splitlines() if line.startswith("sif_writable: "))
    assert ours.startswith(f"sif_writable: {way.name} {_WRITES}")
    assert ours.endswith(f"To undo this: sif-writable cache forget {way.name}")
    assert one_image.says(program) == "made\n"
    assert one_image.has(way.made)
    assert one_image.says(program) == ""


@pytest.mark.parametrize("way", [way for way in WAYS if not way.reports], ids=_by_name)
def test_a_write_that_no_error_shows_is_left_alone_and_can_be_declared(one_image: Image, way: Way) -> None:
    program = f"import {way.name}" + ("" if way.when == IMPORT else f"; {way.name}.use()")
    plain = one_image.run(program, env={"SIF_WRITABLE": "off"})
    first = one_image.run(program)
    ours = [line for line in first.stderr.splitlines(keepends=True) if line.startswith("sif_writable: ")]
    assert (first.returncode, first.stdout) == (plain.returncode, plain.stdout) == (1, "")
    assert first.stderr == plain.stderr + "".join(ours)
    assert [f"one of {way.name} keeps it" in line for line in ours] == [True] * ("sqlite" in way.name)
    assert not one_image.has(f"{SP}/{way.name}")
    given = {"SIF_WRITABLE_PACKAGES": way.name}
    assert one_image.says(program, env=given) == "made\n"
    assert one_image.has(way.made)
    assert one_image.says(program, env=given) == ""


def test_every_interpreter(each_image: Image) -> None:
    ways = [way for way in WAYS if way.name in ("pathlib_import", "wrapped_import", "regenerated_import", "dotdot_use")]
    for way in ways:
        program = f"import {way.name}" + ("" if way.when == IMPORT else f"; {way.name}.use()")
        if way.when != IMPORT:
            assert _PROMISE in each_image.run(program).stderr
        assert each_image.says(program) == "made\n"
        assert each_image.says(program) == ""
        assert each_image.has(way.made)


def test_modules_of_a_copy_come_from_the_image_once_others_may_write_the_storage(one_image: Image) -> None:
    program = """
import os, resourceful, sys
with open(resourceful.__path__[0] + '/more.py', 'w') as file:
    file.write('print("evil")')
folder = os.environ['SIF_WRITABLE_COPIES'].rpartition(':')[2]
os.chmod(os.path.dirname(folder), int(os.environ['MODE'], 8))
sys.modules.pop('resourceful.sub', None)  # the package itself has imported it
import resourceful.sub
print(sys.modules['resourceful.sub'].__file__.startswith(folder))
try:
    import resourceful.more
except ModuleNotFoundError as error:
    print('not this user' in str(error))
"""
    own = {"SIF_WRITABLE_PACKAGES": "resourceful"}
    assert one_image.says(program, env={**own, "MODE": "777"}).endswith("\nFalse\nTrue\n")
    assert one_image.says("import os; os.chmod(os.environ['HOME'] + '/.cache/sif-writable', 0o700)", env=own) == ""
    assert one_image.says(program, env={**own, "MODE": "700"}).endswith("\nTrue\nevil\n")


# --- Every shape of package ---


def test_everything_leads_to_the_copy(one_image: Image) -> None:
    program = """
import resourceful, resourceful.sub, importlib.resources, pathlib, inspect, pickle, pkgutil, sys, os
tree = os.environ['SIF_WRITABLE_COPIES'].rpartition(':')[2]
places = [resourceful.__file__, resourceful.__path__[0], resourceful.__spec__.origin, resourceful.sub.__file__,
    str(pathlib.Path(resourceful.__file__).resolve()), str(importlib.resources.files('resourceful') / 'data.txt'),
    inspect.getsourcefile(resourceful.sub.thing), resourceful.__spec__.submodule_search_locations[0]]
assert all(place.startswith(tree) for place in places), places
assert (importlib.resources.files('resourceful') / 'data.txt').read_text() == 'data'
assert pkgutil.get_data('resourceful', 'data.txt') == b'data'
assert 'return' in inspect.getsource(resourceful.sub.thing)
assert isinstance(pickle.loads(pickle.dumps(resourceful.sub.Box())), resourceful.sub.Box)
assert type(resourceful.__loader__).__name__ == type(resourceful.__spec__.loader).__name__ == 'SourceFileLoader'
assert resourceful.__loader__ is resourceful.__spec__.loader
assert not os.path.islink(resourceful.__file__)
"""
    program = program.replace("importlib.resources.files('resourceful')", "files('resourceful')")
    files = "from pathlib import Path\ndef files(n): import sys; return Path(sys.modules[n].__file__).parent\n"
    if "3.9" not in one_image.environment:
        files = "from importlib.resources import files\n"
    assert one_image.says(files + program) == "executed resourceful\n" * 2
    assert one_image.says(files + program) == "executed resourceful\n"


def test_bytecode_stays_valid(one_image: Image) -> None:
    one_image.says("import resourceful")
    code = one_image.copy(f"{SP}/resourceful/sub/__pycache__")
    (name,) = os.listdir(code)
    before = os.stat(f"{code}/{name}").st_mtime_ns
    assert "matches" in one_image.run(argv=["-v", "-c", "import resourceful"]).stderr
    assert os.stat(f"{code}/{name}").st_mtime_ns == before
    copy = one_image.copy(f"{SP}/resourceful/data.txt")
    original = one_image.environment + copy[len(f"{one_image.folder}/tree/venv") :]
    assert os.path.getmtime(copy) == os.path.getmtime(original)


def test_packages_of_one_distribution_are_copied_together(one_image: Image) -> None:
    assert one_image.says("import twin_a; print(twin_a.value)") == "5\n"
    assert one_image.has(f"{SP}/twin_b/generated.py")
    assert one_image.says("import twin_b.generated as g; print(g.value)") == "5\n"


def test_a_portion_of_a_namespace(one_image: Image) -> None:
    program = "import spacious.portion.sub, spacious.neighbour as n; print(spacious.portion.__file__, n.__file__)"
    for _ in range(2):
        *_, portion, neighbour = one_image.says(program).split()
        assert portion == one_image.inside(one_image.copy(f"{SP}/spacious/portion/__init__.py"))
        assert neighbour.startswith("/venv/")
    assert one_image.has(f"{SP}/spacious/portion/portion.made")


def test_a_portion_of_a_namespace_that_an_earlier_copy_has_as_a_link(one_image: Image) -> None:
    one_image.says("import resourceful")
    assert os.path.islink(one_image.copy(f"{SP}/spacious"))
    for executed in (2, 1):
        assert one_image.says("import spacious.portion") == "executed spacious.portion\n" * executed
    assert one_image.has(f"{SP}/spacious/portion/portion.made")
    assert one_image.says("import spacious.neighbour as n; print(n.__file__)").startswith("/venv/")


@pytest.mark.parametrize("space", ["legacy_space", "oldest_space"])
def test_a_portion_of_a_namespace_that_a_pth_file_made(each_image: Image, space: str) -> None:
    program = f"import {space}.neighbour as n, {space}.portion; print({space}.portion.__file__, n.__file__)"
    for _ in range(2):
        *_, portion, neighbour = each_image.says(program).split()
        assert portion == each_image.inside(each_image.copy(f"{SP}/{space}/portion/__init__.py"))
        assert neighbour.startswith("/venv/")
    assert each_image.has(f"{SP}/{space}/portion/portion.made")


def test_bytecode_without_sources(each_image: Image) -> None:
    for name in ("bare", "bare_beside"):
        printed = each_image.says(
            f"import {name}; print({name}.__file__, type({name}.__loader__).__name__)"
        ).splitlines()
        assert printed[:2] == [f"executed {name}"] * 2
        entry = f"{SP}/{name}.pyc" if name == "bare_beside" else f"{SP}/{name}/__init__.pyc"
        assert printed[2] == f"{each_image.inside(each_image.copy(entry))} SourcelessFileLoader"
        assert each_image.says(f"import {name}") == f"executed {name}\n"
    assert each_image.has(f"{SP}/bare/bare.made")
    assert each_image.has(f"{SP}/bare_beside.made")
    assert _PROMISE in each_image.run("import bare_use; bare_use.use()").stderr
    each_image.says("import bare_use; bare_use.use()")
    assert each_image.has(f"{SP}/bare_use.made")


def test_a_module_of_object_code(one_image: Image) -> None:
    """The interpreter loads object code once, so a failing import is not tried again; it can be declared."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip(f"{NOT_RUN}there is no C compiler")
    library = one_image.machine.in_image("/opt/l")
    with open(f"{library}/objective.c", "w", encoding="utf-8") as file:
        file.write(OBJECT_CODE)
    shared = [compiler, "-shared", "-fPIC", "-nostdlib", "-o", f"{library}/objective.so", f"{library}/objective.c"]
    subprocess.run(shared, check=True)
    given = {"PYTHONPATH": "/opt/l"}
    program = "import objective; print(objective.__file__)"
    first = one_image.run(program, env=given)
    assert (first.returncode, first.stdout) == (1, "")
    assert "sif_writable: /opt/l/objective.made cannot be written" in first.stderr
    copy = f"{one_image.folder}/tree/opt/l/objective"
    given["SIF_WRITABLE_PACKAGES"] = "objective"
    assert one_image.says(program, env=given) == one_image.inside(f"{copy}.so\n")
    assert os.path.exists(f"{copy}.made")


def test_a_module_of_one_file(one_image: Image) -> None:
    assert one_image.says("import solo; print(solo.__file__)").splitlines()[:2] == ["executed solo"] * 2
    expected = one_image.inside(one_image.copy(f"{SP}/solo.py"))
    assert one_image.says("import solo; print(solo.__file__)").splitlines() == ["executed solo", expected]
    assert one_image.has(f"{SP}/solo.made")


def test_a_package_that_is_imported_by_another(one_image: Image) -> None:
    assert one_image.says("import outer").split("\n")[:-1] == ["executed outer"] + ["executed inner"] * 2
    assert one_image.has(f"{SP}/inner/inner.made")
    assert not one_image.has(f"{SP}/outer")


@pytest.mark.parametrize("before", ["", "import fontish, fontish.tables; old = fontish; "])
def test_the_directory_of_another_package(one_image: Image, before: str) -> None:
    program = before + "import font_user, fontish; print(fontish.folder())"
    for executed in (2, 1):
        *times, folder = one_image.says(program).splitlines()
        assert times == ["executed font_user"] * executed
        assert folder == one_image.inside(one_image.copy(f"{SP}/fontish"))
    assert one_image.has(f"{SP}/fontish/fonts/list.json")
    assert not one_image.has(f"{SP}/font_user")


def test_a_package_outside_site_packages(one_image: Image) -> None:
    library = one_image.machine.in_image("/opt/lib")
    os.makedirs(f"{library}/afield")
    with open(f"{library}/afield/__init__.py", "w", encoding="utf-8") as file:
        file.write("import os\nopen(os.path.join(os.path.dirname(__file__), 'a.made'), 'a').close()\n")
    for _ in range(2):
        printed = one_image.says("import afield; print(afield.__file__)", env={"PYTHONPATH": "/opt/lib"})
        assert printed.endswith("/tree/opt/lib/afield/__init__.py\n")
    assert os.path.exists(f"{one_image.folder}/tree/opt/lib/afield/a.made")


def test_an_application_outside_the_prefix_finds_its_root(one_image: Image) -> None:
    library = one_image.machine.in_image("/opt/l/app/lib/python")
    with open(f"{one_image.machine.in_image('/opt/l/app/share')}/model.txt", "w", encoding="utf-8") as file:
        file.write("the model")
    os.mkdir(f"{library}/rooted")
    with open(f"{library}/rooted/__init__.py", "w", encoding="utf-8") as file:
        file.write(
            "import os\nHERE = os.path.dirname(__file__)\nopen(HERE + '/made', 'a').close()\n"
            "ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))\n"
            "print(open(ROOT + '/share/model.txt').read(), open(HERE + '/../../../share/model.txt').read())\n"
        )
    for _ in range(2):
        printed = one_image.says("import rooted", env={"PYTHONPATH": "/opt/l/app/lib/python"})
        assert printed == "the model the model\n"
    assert os.path.exists(f"{one_image.folder}/tree/opt/l/app/lib/python/rooted/made")


def test_a_package_in_a_zip_file_is_refused_with_a_sentence(one_image: Image) -> None:
    library = one_image.places.new_folder("library")
    with zipfile.ZipFile(f"{library}/z.zip", "w") as file:
        file.writestr("zippy/__init__.py", "value = 1")
    given = {"PYTHONPATH": "/opt/lib/z.zip", "SIF_WRITABLE_PACKAGES": "zippy"}
    binds = [f"{library}:/opt/lib:ro"]
    assert one_image.says("import zippy; print(zippy.value)", env=given, binds=binds) == "1\n"
    assert "zippy gets no writable copy: it lies in a zip file" in one_image.learned()


def test_libraries_beside_a_package_are_found(one_image: Image) -> None:
    """An extension module finds `pkg.libs` by `$ORIGIN`, as wheels that auditwheel repaired have it."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip(f"{NOT_RUN}there is no C compiler")
    library = one_image.machine.in_image("/opt/l")
    os.makedirs(f"{library}/native_pkg")
    os.makedirs(f"{library}/native_pkg.libs")
    sources = {"far.c": "int far(void) { return 42; }", "near.c": "int far(void); int near(void) { return far(); }"}
    for name, text in sources.items():
        with open(f"{library}/{name}", "w", encoding="utf-8") as file:
            file.write(text)
    shared = [compiler, "-shared", "-fPIC", "-nostdlib"]
    subprocess.run([*shared, "-o", f"{library}/native_pkg.libs/libfar.so", f"{library}/far.c"], check=True)
    near = [*shared, "-o", f"{library}/native_pkg/near.so", f"{library}/near.c", f"-L{library}/native_pkg.libs"]
    subprocess.run([*near, "-lfar", "-Wl,-rpath,$ORIGIN/../native_pkg.libs"], check=True)
    with open(f"{library}/native_pkg/big.so", "wb") as big:
        big.truncate(3 << 20)
    with open(f"{library}/native_pkg/__init__.py", "w", encoding="utf-8") as file:
        file.write(
            "import ctypes, os\nHERE = os.path.dirname(__file__)\nopen(HERE + '/made', 'a').close()\n"
            "print(ctypes.CDLL(HERE + '/near.so').near())\n"
        )
    for _ in range(2):
        printed = one_image.says("import native_pkg", env={"PYTHONPATH": "/opt/l"})
        assert printed == "42\n"
    copy = f"{one_image.folder}/tree/opt/l/native_pkg"
    assert os.readlink(f"{copy}/big.so") == "/opt/l/native_pkg/big.so"
    # A library is known by its inode: another package that loads the image's own gets the same one.
    os.makedirs(f"{library}/neighbour")
    with open(f"{library}/neighbour/__init__.py", "w", encoding="utf-8") as file:
        file.write(
            "import ctypes, os\nctypes.CDLL(os.path.dirname(os.path.dirname(__file__)) + '/native_pkg/near.so')\n"
        )
    inodes = "{line.split()[4] for line in open('/proc/self/maps') if '/near.so' in line or '/libfar.so' in line}"
    printed = one_image.says(f"import native_pkg, neighbour; print(len({inodes}))", env={"PYTHONPATH": "/opt/l"})
    assert printed == "42\n2\n"
    # Whoever hands links on gets links; what is said of them is true.
    hand_on = (
        "import native_pkg, shutil; shutil.copytree(native_pkg.HERE, '/tmp/out', symlinks=True); "
        "open('/tmp/out/big.so', 'r+b')"
    )
    words = one_image.run(hand_on, env={"PYTHONPATH": "/opt/l"}).stderr.splitlines()[-1]
    assert words.startswith("sif_writable: /tmp/out/big.so is a link to /opt/l/native_pkg/big.so, a file of the image")
    assert "symlinks=True" in words


# --- What is tried again, and what is not ---


def test_a_cure_that_does_not_cure_is_taken_back_and_the_first_error_is_shown(one_image: Image) -> None:
    plain = one_image.run("import hopeless", env={"SIF_WRITABLE": "off"})
    first = one_image.run("import hopeless")
    assert first.returncode == 1
    assert first.stdout == "executed hopeless\n" * 2
    line, _, rest = first.stderr.partition("\n")
    assert line == (
        "sif_writable: A writable copy of hopeless was tried and is not used any more: the import of hopeless failed "
        "with it too (LookupError: no such luck)."
    )
    assert rest == plain.stderr  # the first error, as without us
    again = one_image.run("import hopeless")
    assert (again.stdout, again.stderr.splitlines()[:-1]) == ("executed hopeless\n", plain.stderr.splitlines())
    assert "its copy did not help: the import of hopeless failed with it too" in again.stderr.splitlines()[-1]
    status = " ".join(one_image.run(argv=["-m", "sif_writable", "status", "--verbose"]).stdout.split())
    assert "hopeless refused: its copy did not help" in status


@pytest.mark.parametrize("name", ["lacking", "clean"])
def test_other_failures_are_left_alone(one_image: Image, name: str) -> None:
    ours = one_image.run(f"import {name}")
    plain = one_image.run(f"import {name}", env={"SIF_WRITABLE": "off"})
    assert (ours.returncode, ours.stdout, ours.stderr) == (1, f"executed {name}\n", plain.stderr)
    assert not one_image.has(f"{SP}/{name}")


def test_an_import_that_fails_where_no_more_files_can_be_opened_fails_as_without_us(one_image: Image) -> None:
    program = """
import resource, sys
def hook(event, arguments):
    if event == "exec" and "lacking" in arguments[0].co_filename:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
sys.addaudithook(hook)
import lacking
"""
    ours, plain = (one_image.run(program, env=env) for env in ({}, {"SIF_WRITABLE": "off"}))
    assert (ours.returncode, ours.stdout, ours.stderr) == (1, "executed lacking\n", plain.stderr)


def test_half_imported_modules_are_dropped(one_image: Image) -> None:
    assert one_image.says("import half, half.late, sys; print(half.early.count, half.late.flag)") == "1 True\n"


def test_an_import_that_works_loads_nothing_of_ours(one_image: Image) -> None:
    one_image.says("import quiet")
    printed = one_image.says(
        "import outsider, sys; old = set(sys.modules); import quiet; "
        "print(quiet.value, sorted(n for n in set(sys.modules) - old if 'sif' in n), type(quiet.__loader__).__name__)"
    )
    assert printed == "3 [] SourceFileLoader\n"


def test_the_finders_of_the_path_are_given_back_at_the_end(one_image: Image) -> None:
    program = """
import atexit, sys
def show():
    print(sorted({type(finder).__module__ for finder in sys.path_importer_cache.values() if finder is not None}))
atexit.register(show)  # before ours, so it runs after
import quiet
show()
"""
    assert (
        one_image.says(program)
        == "['_frozen_importlib_external', 'sif_writable.serving']\n['_frozen_importlib_external']\n"
    )


def test_a_write_in_a_thread_is_learned(one_image: Image) -> None:
    program = "import threaded; threaded.use()"
    first = one_image.run(program)
    assert (first.returncode, _PROMISE in first.stderr) == (0, True)
    one_image.says(program)
    assert one_image.has(f"{SP}/threaded/t.made")


def test_the_user_names_packages(one_image: Image) -> None:
    given = {"SIF_WRITABLE_PACKAGES": "quiet, nonsense"}
    printed = one_image.says("import quiet; print(quiet.__file__)", env=given)
    assert printed.strip() == one_image.inside(one_image.copy(f"{SP}/quiet/__init__.py"))
    status = one_image.run(argv=["-m", "sif_writable", "status"], env=given)
    assert "SIF_WRITABLE_PACKAGES names 'nonsense', which is not installed" in " ".join(status.stdout.split())


def test_a_name_within_a_package_changes_nothing(one_image: Image) -> None:
    given = {"SIF_WRITABLE_PACKAGES": "quiet.sub"}
    assert one_image.says("import quiet.sub; print(quiet.sub.__file__)", env=given).startswith("/venv/")
    assert one_image.says("import quiet; print(quiet.__file__)").startswith("/venv/")


def test_ways_to_import_that_are_not_import(one_image: Image) -> None:
    program = """
import importlib, importlib.util, sys
spec = importlib.util.find_spec('resourceful')
assert isinstance(spec.loader, importlib.machinery.SourceFileLoader) and spec.loader.get_code('resourceful')
lazy = importlib.util.find_spec('quiet')
lazy.loader = importlib.util.LazyLoader(lazy.loader)
module = importlib.util.module_from_spec(lazy); sys.modules['quiet'] = module; lazy.loader.exec_module(module)
assert module.value == 3 and type(module.__loader__) is importlib.machinery.SourceFileLoader
from resourceful import *
importlib.reload(sys.modules['resourceful'])
assert '/tree/' in sys.modules['resourceful'].__file__
__import__('half'); assert sys.modules['half'].__spec__._initializing is False
"""
    assert one_image.says(program) == "executed resourceful\n" * 3


def test_what_an_installer_linked_becomes_real(one_image: Image) -> None:
    library = one_image.machine.in_image("/opt/l")
    os.makedirs(f"{library}/store")
    os.makedirs(f"{library}/sp/linked")
    with open(f"{library}/store/file", "w", encoding="utf-8") as file:
        file.write("import os\nopen(os.path.realpath(__file__) + '.made', 'a').close()\n")
    os.symlink("/opt/l/store/file", f"{library}/sp/linked/__init__.py")
    os.symlink("__init__.py", f"{library}/sp/linked/again.py")
    given = {"PYTHONPATH": "/opt/l/sp", "SIF_WRITABLE_PACKAGES": "linked"}
    one_image.says("import linked", env=given)
    copy = f"{one_image.folder}/tree/opt/l/sp/linked"
    assert sorted(os.listdir(copy))[:3] == ["__init__.py", "__init__.py.made", "__pycache__"]
    assert os.readlink(f"{copy}/again.py") == "__init__.py"


# --- Processes, threads, the ways to start ---


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_see_the_same_copy(one_image: Image, method: str) -> None:
    program = f"""
import multiprocessing, resourceful, sys
def where(_):
    import resourceful
    return resourceful.__file__, resourceful.sub.Box()
if __name__ == '__main__':
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        found = pool.map(where, range(4))
    assert all(isinstance(box, resourceful.sub.Box) for _, box in found)
    assert {{path for path, _ in found}} == {{resourceful.__file__}} and '/tree/' in resourceful.__file__
"""
    script = f"{one_image.places.home}/script.py"
    with open(script, "w", encoding="utf-8") as file:
        file.write(program)
    result = one_image.run(argv=[one_image.inside(script)])
    assert (result.returncode, result.stderr) == (0, ""), result


def test_a_package_is_run_as_a_program(one_image: Image) -> None:
    for _ in range(2):
        result = one_image.run(argv=["-m", "resourceful"])
        assert result.returncode == 0, result
        _, main, package = result.stdout.splitlines()[-1].split()
        assert main.startswith(os.path.dirname(package))
        assert "/tree/" in main


def test_threads_import_at_once(one_image: Image) -> None:
    names = [way.name for way in WAYS if way.when == IMPORT and way.reports][:8]
    program = f"""
import threading, importlib
errors = []
def work(name):
    try: importlib.import_module(name)
    except BaseException as error: errors.append((name, error))
threads = [threading.Thread(target=work, args=(name,)) for name in {names!r} * 3]
for t in threads: t.start()
for t in threads: t.join()
assert not errors, errors
"""
    assert sorted(one_image.says(program).split()) == ["made"] * len(names)


def test_many_processes_make_one_copy(one_image: Image) -> None:
    program = f"""
import subprocess, sys
command = [{PYTHON!r}, '-c', 'import large; print(large.__file__)']
running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(32)]
printed = [process.communicate()[0].splitlines()[-1] for process in running]
assert all(process.returncode == 0 for process in running), printed
print(len(set(printed)), printed[0])
"""
    assert one_image.says(program).split() == ["1", one_image.inside(one_image.copy(f"{SP}/large/__init__.py"))]
    assert len(os.listdir(one_image.copy(f"{SP}/large"))) == 303  # parts, __init__, bytecode, what it made
    assert not [name for name in os.listdir(one_image.folder) if name.startswith(".new-")]


def test_a_process_that_is_killed_leaves_no_copy_or_a_whole_one(one_image: Image) -> None:
    one_image.says("import quiet")
    program = f"""
import subprocess, sys, time, os, signal
for number in range(25):
    process = subprocess.Popen([{PYTHON!r}, '-c', 'import large'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.04 + number * 0.008)
    process.send_signal(signal.SIGKILL); process.wait()
    folder = {one_image.inside(one_image.folder)!r} + '/tree/venv/lib'
    for where, names, files in os.walk(folder):
        if where.endswith('site-packages/large') and not os.path.islink(where):
            assert len(files) in (301, 302), len(files)
            subprocess.run(['rm', '-rf', where])
import large
"""
    assert one_image.says(program).endswith("executed large\n")
    assert len(os.listdir(one_image.copy(f"{SP}/large"))) == 303


def test_a_killed_copier_does_not_hold_up_others(one_image: Image) -> None:
    """The lock of a process that is stopped is waited for only so long; a killed one's is free at once."""
    started = time.monotonic()
    program = f"""
import subprocess, signal, time
process = subprocess.Popen([{PYTHON!r}, '-c', 'import large'], stdout=subprocess.DEVNULL)
time.sleep(0.15); process.send_signal(signal.SIGSTOP)
subprocess.run([{PYTHON!r}, '-c', 'import large'], check=True)
process.send_signal(signal.SIGKILL)
"""
    one_image.says(program)
    assert time.monotonic() - started < 30
    assert one_image.has(f"{SP}/large/large.made")


def test_two_images_never_share_a_copy(one_image: Image) -> None:
    one_image.says("import inner")
    labels = one_image.places.new_folder("labels")
    with open(f"{labels}/labels.json", "w", encoding="utf-8") as file:
        file.write("{}")
    binds = [f"{labels}/labels.json:/.singularity.d/labels.json:ro"]
    assert one_image.says("import inner", binds=binds) == "executed inner\n" * 2
    names = os.listdir(f"{one_image.places.home}/.cache/sif-writable")
    assert len([name for name in names if name.startswith("image-")]) == 2


def test_two_environments_of_an_image_never_share_a_copy(one_image: Image) -> None:
    subprocess.run(["cp", "-al", f"{one_image.environment}/.", one_image.machine.in_image("/other")], check=True)
    program = """
import inner, subprocess
print(subprocess.check_output(['/other/bin/python', '-c', 'import inner; print(inner.__file__)'], text=True), end='')
print(inner.__file__)
"""
    *_, other, own = one_image.says(program).splitlines()
    assert "/tree/other/" in other
    assert "/tree/venv/" in own
    assert other.split("/tree/")[0] != own.split("/tree/")[0]


# --- Room, bad input, places of no package ---


def test_a_package_that_is_too_large_is_refused(one_image: Image) -> None:
    given = {"SIF_WRITABLE_COPYUP_MAX": "100KiB"}
    result = one_image.run("import large", env=given)
    assert result.returncode == 1
    assert "OSError: [Errno 30] Read-only file system" in result.stderr
    status = " ".join(one_image.run(argv=["-m", "sif_writable", "status"], env=given).stdout.split())
    assert "SIF_WRITABLE_COPYUP_MAX allows 100 KiB. Remedy: set SIF_WRITABLE_COPYUP_MAX=" in status
    assert one_image.says("import large; print(large.HERE)").endswith("large\n")


def test_a_broken_learned_list_is_passed_over_and_noted(one_image: Image) -> None:
    one_image.says("import inner")
    with open(f"{one_image.folder}/learned", "ab") as file:
        file.write(b"package\tx\n\xff\xfe\0nonsense\tpackage\n\ttorn line without an end")
    one_image.says("import inner")
    assert "open_use" in one_image.run("import open_use; open_use.use()").stderr
    assert one_image.says("import open_use; open_use.use()") == "made\n"
    status = " ".join(one_image.run(argv=["-m", "sif_writable", "status"]).stdout.split())
    assert "3 lines of" in status
    assert "are not understood and were passed over" in status


def test_paths_of_no_package_are_explained_and_not_learned(one_image: Image) -> None:
    for _ in range(2):
        first = one_image.run("import outsider.use")
        assert first.returncode == 1
        line = first.stderr.splitlines()[-1]
        assert line.startswith("sif_writable: /venv/outsider cannot be written, and it belongs to no package")
        assert "--bind DIRECTORY:/venv/outsider" in line
    assert "\t-\t" not in one_image.learned()
    declared = {"SIF_WRITABLE_OVERLAY_PATHS": "/venv/outsider"}
    one_image.says("import outsider.use", env=declared)
    status = " ".join(one_image.run(argv=["-m", "sif_writable", "status", "--verbose"], env=declared).stdout.split())
    assert "/venv can be written: what is new in it is kept in" in status


def test_status_shows_what_was_written(one_image: Image) -> None:
    one_image.says("import rewritten_import, resourceful")
    status = one_image.run(argv=["-m", "sif_writable", "status", "--json"]).stdout
    found = {entry["name"]: entry for entry in json.loads(status)["packages"]}
    assert found["resourceful"]["written"] == ["resourceful.made"]
    assert found["rewritten_import"]["written"] == ["config.json"]
    assert found["resourceful"]["how"] == "copy"
    assert found["resourceful"]["why"].startswith("its import failed for want of a writable directory: /venv/")
    assert found["resourceful"]["where"] == one_image.inside(one_image.copy(f"{SP}/resourceful"))
    assert found["resourceful"]["size_bytes"] > 0


def test_status_reads_well(one_image: Image) -> None:
    one_image.says("import rewritten_import, resourceful")
    one_image.run("import open_use; open_use.use()")
    status = one_image.run(argv=["-m", "sif_writable", "status", "--no-gpu"]).stdout
    assert "copies     3 packages have a writable copy, or get one: open_use, resourceful," in status
    status = one_image.run(argv=["-m", "sif_writable", "status", "--no-gpu", "--verbose"]).stdout
    _, _, section = status.partition("packages that write into their own directory\n")
    packages, _, _ = section.partition("\n\n")
    tree = one_image.inside(one_image.copy(""))[:-1]
    size = re.compile(r"\(\d.*?iB\)")
    assert size.sub("(SIZE)", packages).splitlines() == [
        "  open_use",
        "    because a program failed for want of a writable directory:",
        f"    /venv/lib/{os.path.basename(tree)}/{SP}/open_use/log.txt",
        "    copied at its next import",
        "  resourceful (SIZE)",
        "    because its import failed for want of a writable directory:",
        f"    /venv/lib/{os.path.basename(tree)}/{SP}/resourceful/resourceful.made",
        f"    copied to {tree}/{SP}/resourceful",
        "    it wrote resourceful.made",
        "  rewritten_import (SIZE)",
        "    because its import failed for want of a writable directory:",
        f"    /venv/lib/{os.path.basename(tree)}/{SP}/rewritten_import/config.json",
        f"    copied to {tree}/{SP}/rewritten_import",
        "    it wrote config.json",
    ]
