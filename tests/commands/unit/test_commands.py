"""The commands that print for shells, and bad usage."""

from __future__ import annotations

import ast
import errno
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sif_writable.commands import cli as cli_module
from sif_writable.commands.cli import COMMANDS
from sif_writable.commands.env import SHELLS, assignment, syntax
from sif_writable.report.text import paragraph
from sif_writable.system.program import not_started
from tests.lab import command_line
from tests.lab.store import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": REPOSITORY, "SIF_WRITABLE": "off"}
AWKWARD = [
    "plain",
    "a b",
    "it's",
    'say "x"',
    "$HOME `id` $(id)",
    "back\\slash",
    "line\nbreak",
    "!bang",
    "ünï",
    "*?[]~#;|&",
    "",
]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_reads_back_exactly_what_was_set(shell: str) -> None:
    program = shutil.which(shell) or (shutil.which("tcsh") if shell == "csh" else None)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    lines = [assignment(syntax(shell), f"X_{number}", value) for number, value in enumerate(AWKWARD)]
    show = f"import os; print([os.environ['X_' + str(number)] for number in range({len(AWKWARD)})])"
    done = subprocess.run(
        [program, "-f"] if syntax(shell) == "csh" else [program],
        input="\n".join([*lines, f'{sys.executable} -c "{show}"\n']),
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
    )
    assert ast.literal_eval(done.stdout) == AWKWARD


def cli(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command line from the sources, with the hook off."""
    return command_line.run(arguments, {**ENVIRONMENT, "HOME": "/nowhere", **environ})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "COMMAND"),
        (("no-such-command",), "invalid choice: 'no-such-command'"),
        (("status", "--jsn"), "usage: sif-writable status "),
        (("status", "--jsn"), "sif-writable status: error: unrecognized arguments: --jsn"),
        (("doctor", "word"), "sif-writable doctor: error: unrecognized arguments: word"),
        (("cache",), "usage: sif-writable cache "),
        (("cache", "list", "--yes"), "usage: sif-writable cache list "),
        (("cache", "prune"), "usage: sif-writable cache prune "),
        (("cache", "forget"), "usage: sif-writable cache forget "),
        (("trace", "--json"), "usage: sif-writable trace [options] -- CMD [ARGUMENT...]"),
        (("run",), "usage: sif-writable run [options] -- CMD [ARGUMENT...]"),
        (("run", "--", ""), "sif-writable run: error: the command has no name: ''"),
        (("trace", "--", " ", "x"), "sif-writable trace: error: the command has no name: ' '"),
        (("prestage", "--", ""), "sif-writable prestage: error: the command has no name: ''"),
        (("completion", "ksh"), "usage: sif-writable completion "),
        (("env", "--shell", "ksh"), "invalid choice: 'ksh'"),
        (("run",), "no command given"),
        (("run", "--"), "no command given"),
        (("cache", "list", "--dir", ""), "'' holds no storage"),
    ],
)
def test_bad_usage_exits_2_and_says_what_is_wrong(arguments: tuple[str, ...], words: str) -> None:
    done = cli(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


COMMAND_LINES: tuple[tuple[str, ...], ...] = (
    ("--help",),
    *((name, "--help") for name in COMMANDS),
    ("status", "--json"),
    ("status", "--full", "--verbose"),
    ("doctor", "--require-gpu"),
    ("cache", "list"),
    ("cache", "prune", "--max-size", "1G"),
    ("cache", "clear", "nothing"),
    ("env",),
    ("prepare", "--check"),
    ("prestage",),
    ("run",),
    ("trace",),
    ("completion", "bash"),
)
_ALL = """
import contextlib, io, sys
from sif_writable.commands.cli import main
for words in WORDS:
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), write_through=True)) as out:
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code
    print(*words, code, bool(out.buffer.getvalue()))
print(sys.flags.optimize, file=sys.stderr)
"""


def test_every_command_works_without_doc_strings_and_assertions(tmp_path: Path) -> None:
    program = _ALL.replace("WORDS", repr([list(words) for words in COMMAND_LINES]))
    environ = {**ENVIRONMENT, "HOME": str(tmp_path)}
    outputs = []
    for level in ("", "2"):
        words = [sys.executable, "-c", program]
        env = {**environ, "PYTHONOPTIMIZE": level}
        done = subprocess.run(words, env=env, cwd=tmp_path, check=False, capture_output=True, text=True)
        assert done.stderr.endswith(f"{level or 0}\n"), done.stderr
        assert "Traceback" not in done.stderr
        outputs.append(done.stdout.splitlines())
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == len(COMMAND_LINES)
    assert [line.split()[-2] for line in outputs[0][: 1 + len(COMMANDS)]] == ["0"] * (1 + len(COMMANDS))


@pytest.mark.parametrize(("text", "why"), [("", "AttributeError: "), ("raise OSError('mine')", "OSError: mine")])
def test_doctor_says_what_else_bears_the_name_of_platformdirs(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "platformdirs.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "sif_writable", "doctor"],
        env={**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}", "HOME": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    output = " ".join(done.stdout.split())
    assert (
        f"WARN user directories: they were not asked for: {tmp_path}/platformdirs.py is not platformdirs ({why}"
        in output
    )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("env",), 0, "nothing is set here: {}\n"),
        (("env", "-q"), 0, ""),
        (("run", "--", "true"), 0, "true runs as without sif-writable: {}\n"),
        (("run", "-q", "--", "true"), 0, ""),
        (("cache", "clear", "numba"), 2, "no storage was chosen here: {}. Remedy: name it with --dir DIR, or "),
        (("cache", "prune", "--older-than", "1d"), 2, "no storage was chosen here: {}. Remedy: "),
        (("cache", "forget", "numba"), 2, "what was learned of an image is not known here: {}. Remedy: "),
        (("cache", "forget", "--all"), 2, "what was learned of an image is not known here: {}. Remedy: "),
    ],
)
def test_where_the_hook_has_nothing_to_do_a_command_says_why(
    words: tuple[str, ...], code: int, said: str, tmp_path: Path
) -> None:
    for mode, why in (("off", "SIF_WRITABLE=off"), ("auto", "not in a container")):
        done = cli(*words, SIF_WRITABLE=mode, HOME=str(tmp_path))
        # The hook runs in the command itself where it is off, or where nothing has started it.
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr.startswith(f"sif_writable: {said.format(why)}" if said else "")
        assert bool(said) == bool(done.stderr)


def test_run_passes_on_what_its_command_says() -> None:
    assert cli("run", "--", "sh", "-c", "exit 7").returncode == 7
    missing = cli("run", "-q", "--", "no-such-program")
    assert (missing.returncode, missing.stderr) == (127, "sif_writable: no-such-program: command not found\n")
    refused = cli("run", "--", "/etc/passwd")
    assert refused.returncode == 126
    assert "/etc/passwd cannot be executed: Permission denied" in refused.stderr


def test_a_program_that_lies_nowhere_is_not_found_although_a_folder_of_path_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").write_text("not a program")
    monkeypatch.setenv("PATH", f"/no/such/folder:{tmp_path}")
    denied = PermissionError(errno.EACCES, "Permission denied")
    assert not_started("nowhere", denied) == (127, "nowhere: command not found")
    assert not_started("closed", denied) == (126, "closed cannot be executed: Permission denied")
    assert not_started("./nowhere", denied) == (126, "./nowhere cannot be executed: Permission denied")
    assert not_started("./nowhere", FileNotFoundError()) == (127, "./nowhere: command not found")


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m sif_writable status --json | true; echo ${{PIPESTATUS:-0}}"],
        capture_output=True,
        text=True,
        check=True,
        env=ENVIRONMENT,
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_where_standard_output_cannot_be_written_one_line_says_so() -> None:
    for words in ("status", "env --shell fish", "doctor --json"):
        shell = f"{sys.executable} -m sif_writable {words}"
        full, closed = (
            subprocess.run(
                ["sh", "-c", f"{shell} {where}"], capture_output=True, text=True, check=False, env=ENVIRONMENT
            )
            for where in (">/dev/full", ">&-")
        )
        assert "Traceback" not in full.stderr + closed.stderr
        assert closed.returncode in (0, 1)
        if words != "env --shell fish":  # which prints nothing where the hook is off
            assert full.returncode == 2
            assert "sif_writable: standard output cannot be written: No space left on device. Remedy: " in full.stderr


def test_an_interrupt_ends_a_command_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("sif_writable.commands.status.run", interrupted)
    monkeypatch.setattr(cli_module, "_discard", lambda: None)
    assert cli_module.main(["status"]) == 130


def test_text_folds_at_80_columns_but_never_within_a_path() -> None:
    path = "/" + "p" * 100
    lines = paragraph(f"because {path} is long " + "word " * 30, 4).splitlines()
    assert any(line.strip() == path for line in lines)
    assert all(len(line) <= 80 for line in lines if path not in line)


def test_only_the_command_that_is_asked_for_is_loaded(tmp_path: Path) -> None:
    program = "import sys\nfrom sif_writable.commands.cli import main\nmain(['env', '-q'])\n"
    program += "print([name for name in sys.modules if name.startswith('sif_writable.commands.')], file=sys.stderr)"
    environ = {**ENVIRONMENT, "HOME": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    loaded = [f"sif_writable.commands.{name}" for name in ("usage", "cli", "env")]
    assert result.stderr == f"{loaded}\n"
