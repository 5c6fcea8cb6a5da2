"""Layers in rootless containers, on the kernel's own mounts: made, joined, left, published, and refused."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.lab.store import ORDINARY_UID
from tests.lab.ways import WAYS

if TYPE_CHECKING:
    from tests.layer.conftest import Box

WAYS_CODE = """
import importlib
ways = json.loads(os.environ["WAYS"])
problem = enter()
failed = []
for name, use in ways:
    os.chdir("/work-folder")
    try:
        module = importlib.import_module(name)
        if use:
            exec(use, {name: module})
    except Exception as error:
        failed.append(f"{name}: {error!r}")
answer([problem, failed])
"""


def test_every_way_of_writing_works_at_the_first_run_and_is_kept(box: Box) -> None:
    ways = [(way.name, way.use or (f"{way.name}.use()" if way.when == "use" else "")) for way in WAYS]
    env = {"WAYS": json.dumps(ways)}
    first = box.run(WAYS_CODE, env=env)
    *made, line = first.stdout.splitlines()
    assert (json.loads(line), made.count("made")) == (["", []], len(WAYS)), first
    second = box.run(WAYS_CODE, env=env)
    *made, line = second.stdout.splitlines()
    assert (json.loads(line), made) == (["", []], []), second


def test_a_file_that_its_owner_may_not_write_stays_refused_and_no_capability_is_left(box: Box) -> None:
    code = """
problem = enter()
write(SITE + "/locked"); os.chmod(SITE + "/locked", 0o444)
answers = []
for attempt in (lambda: write(SITE + "/locked"), lambda: kernel.mount("tmpfs", "/venv", "tmpfs")):
    try:
        attempt()
        answers.append("done")
    except OSError as error:
        answers.append(error.errno)
capabilities = [line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapPrm"))]
answer([problem, answers, capabilities, os.getuid() == os.stat("/work-folder").st_uid])
"""
    assert box.answer(code) == ["", [13, 1], ["0" * 16] * 2, True]


def test_processes_of_one_container_share_one_layer_and_those_of_another_have_their_own(box: Box) -> None:
    script = f"""
$P 'assert enter() == ""
write(SITE + "/from-first"); answer(["first", os.readlink("/proc/self/ns/mnt")])
while not os.path.exists(SITE + "/from-second"): time.sleep(0.01)' &
while ! ls {box.inside}/layer/container-* >/dev/null 2>&1; do sleep 0.01; done
TOKEN=other $P 'assert enter() == ""
answer(["other", os.readlink("/proc/self/ns/mnt"), os.path.exists(SITE + "/from-first")])'
cd /venv/bin
$P 'assert enter() == ""
while not os.path.exists(SITE + "/from-first"): time.sleep(0.01)
write(SITE + "/from-second")
answer(["second", os.readlink("/proc/self/ns/mnt"), os.getcwd(), os.path.exists("python")])'
wait
"""
    result = box.shell(script)
    assert (result.returncode, result.stderr) == (0, ""), result
    answers = {line[0]: line[1:] for line in map(json.loads, result.stdout.splitlines())}
    assert answers["first"][0] == answers["second"][0] != answers["other"][0]
    assert answers["second"][1:] == ["/venv/bin", True]
    assert answers["other"][1] is False
    assert {os.path.basename(path) for path in box.generation()} >= {"from-first", "from-second"}


def test_the_number_of_a_namespace_that_has_ended_is_no_layer(box: Box) -> None:
    assert box.answer('assert enter() == ""; answer(entering.current.link)', env={"TOKEN": "same"})
    link, here = f"{box.inside}/layer/container-same", 'os.readlink("/proc/self/ns/mnt")'
    again = f"""
name, _, rest = os.readlink({link!r}).partition(":")
os.unlink({link!r})
os.symlink(name + ":" + {here}[5:-1] + ":" + rest.partition(":")[2], {link!r})
problem = enter()
write(SITE + "/written")
answer([problem, entering.current.name != name])
"""
    assert box.answer(again, env={"TOKEN": "same"}) == ["", True]
    exported = f"""
os.environ[LAYER] = entering.inside({here}, "elsewhere", "image-test", sys.prefix, ["/venv"])
problem = enter()
write(SITE + "/written")
answer([problem, entering.current is not None])
"""
    assert box.answer(exported) == ["", True]


def test_what_conda_installed_is_gone_with_the_layer(box: Box) -> None:
    code = """
assert enter() == ""
os.mkdir("/venv/conda-meta")
write("/venv/conda-meta/q-1-0.json", json.dumps({"files": ["lib/q.data"]}))
write("/venv/lib/q.data"); write("/venv/lib/mine.data")
"""
    assert "/q-1-0.json and 1 more: code in the place of the image's, or installed; gone with" in box.run(code).stderr
    assert list(box.generation()) == ["/venv/lib/mine.data"]


def test_a_layer_that_is_about_to_end_is_waited_for_by_the_next_start_of_its_container(box: Box) -> None:
    slow = """
real, asked = alive.state_of, []
alive.state_of = lambda *words: asked.append(1) or ("alive" if len(asked) < 4 else real(*words))  # as just after a kill
assert enter() == ""
answer(read(SITE + "/by-killed"))
"""
    script = f"$P 'assert enter() == \"\"; write(SITE + \"/by-killed\"); os.kill(os.getpid(), 9)'\n$P '{slow}'"
    result = box.shell(script)
    assert result.stdout == '"x"\n', result


def test_two_environments_of_one_container_have_a_layer_each_in_one_namespace(box: Box) -> None:
    other = "STORAGE=/home/user/.cache/sif-writable/image-other"
    script = f"""
mkdir -m 700 /home/user/.cache/sif-writable/image-other
cd /work-folder
$P 'assert enter(SITE) == ""
write(SITE + "/from-first"); answer(os.readlink("/proc/self/ns/mnt"))
for _ in range(500): os.path.exists("/venv/bin/from-other") or time.sleep(0.01)
write("ended")' &
while ! ls {box.inside}/layer/container-* >/dev/null 2>&1; do sleep 0.01; done
{other} $P 'problem = enter("/venv/bin", SITE)
same = os.readlink("/proc/'$!'/ns/mnt") == os.readlink("/proc/self/ns/mnt")
capabilities = [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")]
answer([problem, same, entering.current.directories, read(SITE + "/from-first"), os.getcwd(), capabilities])
write("/venv/bin/from-other")
for _ in range(500): os.path.exists("ended") or time.sleep(0.01)'
wait
{other} $P 'assert enter("/venv/bin") == ""
answer(read("/venv/bin/from-other"))'
TOKEN=third $P 'enter(SITE); answer([read(SITE + "/from-first"), os.path.exists("/venv/bin/from-other")])'
"""
    result = box.shell(script)
    _, second, again, third = map(json.loads, result.stdout.splitlines())
    assert second == ["", True, ["/venv/bin"], "x", "/work-folder", ["0" * 16]], result
    assert (again, third) == ("x", ["x", False]), result


def test_many_first_processes_make_one_layer(box: Box) -> None:
    script = """
for i in 1 2 3 4 5 6 7 8; do
$P 'problem = enter(); write(SITE + "/" + sys.argv[2]); answer([problem, os.readlink("/proc/self/ns/mnt")])
while len([n for n in os.listdir(SITE) if n.startswith("many-")]) < 8: time.sleep(0.01)' many-$i & done
wait
"""
    result = box.shell(script)
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(answers) == 8, result
    assert len({json.dumps(line) for line in answers}) == 1, answers
    assert answers[0][0] == ""
    assert len([path for path in box.generation() if "/many-" in path]) == 8


def test_what_a_killed_process_wrote_is_published_by_the_next_start_and_not_while_a_child_lives(box: Box) -> None:
    kill = """
assert enter() == ""
write(SITE + "/before")
if os.fork() == 0:
    time.sleep(1.5); write(SITE + "/late"); os._exit(0)
os.kill(os.getpid(), 9)
"""
    script = f"""
$P '{kill}'
TOKEN=b $P 'assert enter() == ""
answer([os.path.exists(SITE + "/before"), [alive.states(entering.current.place, [n]) and 0 for n in ()]])'
ls {box.inside}/layer | grep gen-
$P 'assert enter() == ""
answer([os.path.exists(SITE + "/before")])'
sleep 2
TOKEN=c $P 'assert enter() == ""
answer([read(SITE + "/before"), read(SITE + "/late")])'
"""
    result = box.shell(script)
    assert [json.loads(line) for line in result.stdout.splitlines()] == [[False, []], [True], ["x", "x"]], result


def test_a_file_of_the_topmost_directory_that_a_killed_process_changed_is_published(box: Box) -> None:
    """Its copy leaves that directory with the time that it had in the image."""
    env = {"SIF_WRITABLE_KEEP": "all"}  # without, what the interpreter obeys at its start is gone with the layer
    box.run('assert enter() == ""\nwrite("/venv/pyvenv.cfg", "changed = yes", "a"); os.kill(os.getpid(), 9)', env=env)
    done = box.run('assert enter() == ""\nanswer("changed = yes" in read("/venv/pyvenv.cfg"))', env=env)
    assert done.stdout == "true\n", done


def test_a_daemon_that_outlived_who_made_the_layer_is_joined(box: Box) -> None:
    script = """
$P 'assert enter() == ""
write(SITE + "/here")
if os.fork() == 0:
    os.setsid()
    while not os.path.exists(SITE + "/stop"): time.sleep(0.01)
    os._exit(0)
answer(os.readlink("/proc/self/ns/mnt"))' > first
$P 'assert enter() == ""
answer([read(SITE + "/here"), os.readlink("/proc/self/ns/mnt")]); write(SITE + "/stop")'
cat first
"""
    result = box.shell(script)
    (here, second), first = map(json.loads, result.stdout.splitlines())
    assert (here, second) == ("x", first), result


def test_who_has_a_user_namespace_of_its_own_is_joined_in_the_layers(box: Box) -> None:
    """As browsers and sandboxes make one: whoever followed them there would be nobody, with capabilities."""
    script = """
mkfifo ends
$P 'assert enter() == ""
write(SITE + "/here"); first = os.readlink("/proc/self/ns/user")
join.call("unshare", "unshare", join.NEWUSER)
answer([first, os.getuid()]); sys.stdin.read()' < ends > first &
exec 3> ends
while ! test -s first; do sleep 0.01; done
$P 'assert enter() == ""
status = dict(line.split(":", 1) for line in read("/proc/self/status").splitlines())
answer([os.readlink("/proc/self/ns/user"), os.getuid(), read(SITE + "/here"), status["CapEff"].strip("\\t0")])
write(SITE + "/there")'
exec 3>&-
wait
cat first
"""
    result = box.shell(script)
    (joined, *second), (made, nobody) = map(json.loads, result.stdout.splitlines())
    uid = ORDINARY_UID if os.getuid() == 0 else os.getuid()
    assert (joined, second, nobody) == (made, [uid, "x", ""], 65534), result


def test_the_kernel_says_who_is_alive(box: Box) -> None:
    code = """
assert enter() == ""
names = [name for name in os.listdir(entering.current.place) if name.startswith("upper-")]
from sif_writable.layer import child
def ask():
    return json.dumps(alive.states(entering.current.place, names))
answer(list(json.loads(child.ask(ask, 10)).values()))
if os.environ.get("KILLED"):
    os.kill(os.getpid(), 9)
"""
    box.run(code, env={"KILLED": "1"})
    assert sorted(box.answer(code)) == ["alive", "dead"]


def test_directories_that_nobody_may_write_keep_no_layer_from_the_others(box: Box) -> None:
    code = """
for name in ("bin", "closed/open", "pkg"):
    os.makedirs("/work-folder/env/" + name)
    write("/work-folder/env/" + name + "/file")
for name in ("bin", "closed"):
    os.chmod("/work-folder/env/" + name, 0o555)
problem = enter("/work-folder/env")
write("/work-folder/env/pkg/file", "changed")
try:
    write("/work-folder/env/bin/new")
except OSError as error:
    answer([problem, error.errno])
"""
    assert box.answer(code) == ["", 13]


def test_where_a_layer_would_serve_nothing_there_is_none(box: Box) -> None:
    """The topmost directory could be written, but none of the packages in it."""
    code = """
layer = entering.Layer("", "")
layer.directories = ["/work-folder/dist-packages"]
os.mkdir(layer.directories[0], 0o555)
answer(trial._trial(layer))
"""
    says = "a layer over /work-folder/dist-packages would serve nothing: its owner may not write there (mode 555)"
    assert box.answer(code) == says


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"SIF_WRITABLE_OVERLAY": "off"}, "SIF_WRITABLE_OVERLAY=off"),
        ({"OMPI_COMM_WORLD_RANK": "0"}, "a rank of an MPI program"),
        ({"KRB5CCNAME": "KEYRING:persistent:1000"}, "keyring"),
    ],
)
def test_where_no_layer_is_allowed_nothing_changes(box: Box, env: dict[str, str], words: str) -> None:
    code = "a = os.readlink('/proc/self/ns/user'); p = enter(); answer([p, a == os.readlink('/proc/self/ns/user')])"
    problem, same = box.answer(code, env=env)
    assert words in problem
    assert same


def test_none_is_made_with_all_users_and_where_the_kernel_refuses_that_is_said_and_kept(
    box: Box,
) -> None:
    code = "answer([enter(), os.readlink('/proc/self/ns/user')])"
    if os.getuid() == 0:  # an ordinary user who runs the tests is in such a namespace already
        assert "more users than one" in box.answer(code, rootless=False)[0]
    refused = (
        f"entering.identity = lambda *_: ''\n{code}"  # the decision is skipped, so that it is the kernel that refuses
    )
    first = box.answer(refused, rootless=False, userns=False)[0]
    assert "a user namespace cannot be made here" in first
    with open(f"{box.place}/trial", encoding="utf-8") as file:
        assert first in file.read()


def test_on_makes_one_from_the_first_namespace_too_and_others_are_nobody_then(box: Box) -> None:
    code = "p = enter(); write(SITE + '/x'); answer([p, read(SITE + '/x'), os.stat('/usr').st_uid, os.getuid()])"
    found = box.answer(code, env={"SIF_WRITABLE_OVERLAY": "on"}, rootless=False)
    assert found == ["", "x", 65534, ORDINARY_UID if os.getuid() == 0 else os.getuid()]


def test_what_the_host_mounted_below_the_environment_stays(box: Box) -> None:
    (site,) = box.answer("answer([SITE])")
    folder = box.places.new_folder("bound")
    with open(f"{folder}/of-the-host", "w", encoding="utf-8") as file:
        file.write("host")
    code = """
problem = enter()
try:
    write(SITE + "/bound/new")
    refused = "no"
except OSError as error:
    refused = error.errno
answer([problem, read(SITE + "/large/of-the-host"), refused])
""".replace("/bound/", "/large/")
    problem, text, refused = box.answer(code, binds=[f"{folder}:{site}/large:ro"])
    assert text == "host"
    assert refused == 30
    assert problem == "" or "cannot be mounted" in problem


def test_what_a_machine_that_crashed_had_not_flushed_is_not_kept(box: Box) -> None:
    box.run("assert enter() == ''\nwrite(SITE + '/unflushed'); os.kill(os.getpid(), 9)")
    (upper,) = [name for name in os.listdir(box.place) if name.startswith("upper-")]
    with open(f"{box.place}/{upper}/about", "r+", encoding="utf-8") as file:
        file.write("another-run-of-the-machine"[:10])
    result = box.run("assert enter() == ''\nanswer(os.path.exists(SITE + '/unflushed'))")
    assert result.stdout == "false\n"
    assert "is lost, since half of it may be missing" in result.stderr
    assert upper not in os.listdir(box.place)


def test_many_containers_leave_no_more_than_a_few_empty_layers_and_links(box: Box) -> None:
    code = 'from sif_writable.layer import make; make.EMPTY = 3; collect.LINK_SECONDS = -1\nassert enter() == ""'
    code += (
        '\nprint([len([n for n in os.listdir(entering.current.place) if n.startswith(k)]) for k in ("upper-", "cont")])'
    )
    script = "".join(f"TOKEN={number} $P '{code}'\n" for number in range(12))
    result = box.shell(script)
    assert result.stderr == ""
    for line in result.stdout.splitlines():
        uppers, links = json.loads(line)
        assert 1 <= links <= uppers <= 4, result
    for name in os.listdir(box.place):
        if name.startswith("container-"):
            assert os.path.isdir(f"{box.place}/{os.readlink(f'{box.place}/{name}').partition(':')[0]}")


def test_every_interpreter(each_box: Box) -> None:
    code = """
problem = enter()
write(SITE + "/new"); write(SITE + "/large/__init__.py", "# changed", "a"); write(SITE + "/own.pth", "")
answer([problem, sorted(name for name in sys.modules if name.startswith("sif_writable.layer"))])
"""
    result = each_box.run(code, env={"SIF_WRITABLE_KEEP": "new"})
    problem, _ = json.loads(result.stdout)
    assert problem == ""
    assert "and 1 more: code in the place of the image's, or installed; gone with" in result.stderr
    assert [os.path.basename(path) for path in each_box.generation()] == ["new"]
    ask = "p = enter(); answer([p, os.path.exists(SITE + '/new'), 'changed' in read(SITE + '/large/__init__.py')])"
    assert each_box.answer(ask) == ["", True, False]


def test_how_a_program_was_called_and_its_umask_are_no_reason_to_keep_nothing(box: Box) -> None:
    """Started by another name, an interpreter does not know its own path."""
    script = """
$P 'assert enter() == ""
sys.executable = ""; write(SITE + "/nameless")'
$P 'assert enter() == ""
sys.executable = "/nowhere/python"; write(SITE + "/elsewhere")'
$P 'assert enter() == ""
write(SITE + "/closed"); os.umask(0o777)'
"""
    result = box.shell(script)
    assert (result.returncode, result.stderr) == (0, ""), result
    assert {os.path.basename(path) for path in box.generation()} == {"nameless", "elsewhere", "closed"}


@pytest.mark.parametrize(("keep", "kept"), [("all", {"__init__.py", "new", "own.pth"}), ("none", set())])
def test_what_is_kept_is_the_users_choice_whoever_publishes_it(box: Box, keep: str, kept: set[str]) -> None:
    code = """
assert enter() == ""
write(SITE + "/large/__init__.py", "# changed", "a"); write(SITE + "/own.pth", ""); write(SITE + "/new")
if "KILLED" in os.environ: os.kill(os.getpid(), 9)
"""
    says = "later runs have it, too. To undo this: sif-writable cache forget large own.pth" if kept else ""
    for killed in (True, False):
        result = box.run(code, env={"SIF_WRITABLE_KEEP": keep, **({"KILLED": "1"} if killed else {})})
        if killed:
            result = box.run('assert enter() == ""')  # the next start publishes it, with another setting
        assert says in result.stderr, result
        assert bool(result.stderr) == bool(kept), result
        names = {os.path.basename(path) for path in box.generation()} if os.path.isdir(box.place) else set()
        assert names == kept


def test_an_installer_sees_it_read_only_without_the_variable_and_in_a_sandbox_too(box: Box) -> None:
    code = """
from sif_writable import mounted
from sif_writable.layer import installers
assert enter() == ""
def install(before):
    if os.fork() == 0:
        before()
        found = [mounted.is_layer_over_prefix(os.environ.get(LAYER))]
        installers.without(os.environ)
        try:
            write(SITE + "/during")
        except OSError as error:
            found.append(error.errno)
        answer(found)
        os._exit(0)
    os.wait()
install(lambda: os.environ.pop(LAYER))
install(lambda: kernel.separate(os.getuid(), os.getgid()))
"""
    done = box.run(code)
    assert (done.stdout, done.stderr) == ("[true, 30]\n" * 2, ""), done


def test_an_installer_started_in_a_layer_sees_it_read_only_and_its_parent_does_not(box: Box) -> None:
    code = """
from sif_writable.layer import installers
assert enter() == ""
write(SITE + "/before")
child = os.fork()
if child == 0:
    os.chdir(SITE)
    installers.without(os.environ)
    try:
        write("during")
    except OSError as error:
        os._exit(error.errno if read("before") == "x" and enter() == "" else 1)
    os._exit(0)
code = os.waitpid(child, 0)[1] >> 8
write(SITE + "/after")
answer([code, sorted(name for name in os.listdir(SITE) if name in ("before", "during", "after"))])
"""
    assert box.answer(code) == [30, ["after", "before"]]
