"""A real Slurm on one host: a controller and several virtual nodes, with Apptainer, in a private root of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from tests.lab import apt, debian, entry, scratch
from tests.lab.apptainer_root import Apptainer, Runtime
from tests.lab.store import LAB
from tests.lab.unavailable import LabUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

NODES, CPUS = 4, 16
"""Nodes, and how many tasks of one processor each of them takes: whatever the host has, nobody waits for a slot."""

_SETTINGS = """
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={state}/munge.socket
CredType=cred/munge
StateSaveLocation={state}/saved
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/slurmd-%n.pid
SlurmdSpoolDir={state}/spool-%n
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MaxArraySize=10001
SchedulerParameters=sched_min_interval=50000,batch_sched_delay=0
{nodes}
PartitionName=all Nodes=ALL Default=YES State=UP MaxTime=INFINITE LLN=YES
"""
# In the foreground, and until the other end of standard input is closed, also by the death of whoever holds it.
_DAEMONS = """
cd "$1" && shift
munged --foreground --force --socket="$PWD/munge.socket" --key-file="$PWD/munge.key" --pid-file="$PWD/munge.pid" \
    --log-file="$PWD/munge.log" --seed-file="$PWD/munge.seed" >munge.out 2>&1 &
for try in $(seq 100); do test -S munge.socket && break; sleep 0.05; done
slurmctld -D >slurmctld.out 2>&1 &
for node; do slurmd -D -N "$node" >"slurmd-$node.out" 2>&1 & done
for try in $(seq 300); do
    test "$(sinfo --noheader --Node --states=idle 2>/dev/null | wc -l)" = $# && echo ready && exec cat
    sleep 0.1
done
"""
_SUBMIT = """
job=$(sbatch --parsable "$@") || exit
until left=$(squeue --noheader --jobs="$job") && test -z "$left"; do sleep 0.5; done
squeue --noheader --array --states=all --jobs="$job" --format='%A %K %T'
"""


class Task(NamedTuple):
    """What became of one task of an array."""

    state: str
    output: str


class Cluster:
    """Slurm as the ordinary user sees it, who submits on the machine where it runs."""

    def __init__(self, apptainer: Apptainer, settings: str) -> None:
        """Take the way to run programs there, and the settings as they are named there."""
        self.apptainer = apptainer
        self.settings = settings

    def submit(
        self,
        script: str,
        argv: Sequence[str],
        *,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        timeout: float = 600,
    ) -> list[Task]:
        """Submit an array job, wait until it has ended, and return its tasks in order.

        The script is a path outside, of which the user makes a copy; it finds `argv` as its arguments. The output of
        each task is taken away.
        """
        own = shutil.copy(script, self.apptainer.places.work)
        outputs = self.apptainer.places.new_folder("slurm-output")
        options = [*options, f"--output={self.apptainer.inside(outputs)}/%a"]
        words = ["sh", "-c", _SUBMIT, "sh", *options, self.apptainer.inside(own), *argv]
        result = self.apptainer.beside(words, env={"SLURM_CONF": self.settings, **(env or {})}, timeout=timeout)
        if result.returncode:
            raise RuntimeError(f"Slurm did not take the job: {result.stderr}")
        states = {int(number): state for _, number, state in map(str.split, result.stdout.splitlines())}
        tasks = []
        for number in sorted(states):
            path = os.path.join(outputs, str(number))
            with open(path, encoding="utf-8", errors="replace") as file:
                tasks.append(Task(states[number], file.read()))
            os.unlink(path)
        return tasks


@contextlib.contextmanager
def running(nodes: int = NODES) -> Iterator[Cluster]:
    """Start the daemons, and end them with everything that they have started."""
    if not os.path.exists("/dev/fuse"):
        raise LabUnavailable("there is no /dev/fuse, which Apptainer without privileges mounts images with")
    runtime = Runtime("/usr/bin/apptainer", debian.slurm_tree(), "/lab")
    with scratch.fresh() as places:
        apptainer = Apptainer(runtime, places)
        state = os.path.join(places.folder, "slurm")
        os.mkdir(state, 0o755)
        os.mkdir(os.path.join(state, "saved"))
        names = [f"n{number + 1}" for number in range(nodes)]
        settings = os.path.join(state, "slurm.conf")
        _write(settings, _settings(apptainer.inside(state), names))
        _write(os.path.join(state, "cgroup.conf"), "CgroupPlugin=disabled\n")
        _write(os.path.join(state, "munge.key"), os.urandom(64).hex(), 0o600)
        what = entry.Entry(
            argv=["sh", "-c", _DAEMONS, "sh", apptainer.inside(state), *names],
            environment={"PATH": apt.SYSTEM_PATH, "LANG": "C.UTF-8", "SLURM_CONF": apptainer.inside(settings)},
            folder="/",
            uid=0,
            stage=places.stage,
            tree=runtime.tree,
            squashfs="",
            layer="",
            mirror=False,
            layers=[],
            overlay=False,
            binds=[f"{LAB}:{runtime.lab}", *places.world, f"{places.home}:{scratch.HOME}"],
            images=[],
            served=[],
            tmpfs=["/run"],
            setuid=True,
            user_namespaces=True,
            fuse=True,
            devices=[],
        )
        daemons = subprocess.Popen(
            entry.command(what),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert daemons.stdout is not None
            if daemons.stdout.readline() != "ready\n":
                raise RuntimeError(f"Slurm did not start:\n{_said(state)}")
            yield Cluster(apptainer, apptainer.inside(settings))
        finally:
            daemons.kill()  # and the kernel all the others: the first process of their namespace goes with it
            daemons.communicate()


def _settings(state: str, names: list[str]) -> str:
    controller, *ports = _free_ports(1 + len(names))
    nodes = "\n".join(
        f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} State=UNKNOWN"
        for name, port in zip(names, ports)
    )
    return _SETTINGS.format(host=socket.gethostname(), controller=controller, state=state, nodes=nodes)


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody has at the moment: another Slurm may run on this machine."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _said(state: str) -> str:
    """Return the end of what each daemon has said."""
    ends = []
    for name in sorted(os.listdir(state)):
        if name.endswith(".out"):
            with open(os.path.join(state, name), encoding="utf-8", errors="replace") as file:
                ends.append(f"{name}: {file.read()[-1500:]}")
    return "\n".join(ends)


def _write(path: str, text: str, mode: int = 0o644) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)
