"""``sif-writable completion SHELL``: what lets a shell complete the commands, made from their parsers."""

from __future__ import annotations

import argparse
import shlex
from typing import NamedTuple

from sif_writable.commands.usage import PROGRAM

SHELLS = ("bash", "zsh", "fish")
_BASH_WORDS = 'COMPREPLY=($(compgen -W "{}" -- "$current"))'


class Level(NamedTuple):
    """What may stand at one place of the command line."""

    words: str
    """The commands before it, such as ``cache list``; empty at the beginning."""
    commands: dict[str, str]
    """Command to what it does."""
    options: dict[str, str]
    """Option to what it means."""
    choices: dict[str, tuple[str, ...]]
    """Option to its values, where these are known."""
    folders: tuple[str, ...]
    """Options whose value is a directory."""
    runs: bool
    """Whether a command of the user's follows."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the argument."""
    parser.add_argument("shell", choices=SHELLS, help="the shell that shall complete")


def run(arguments: argparse.Namespace) -> int:
    """Print the script; always 0."""
    from sif_writable.commands import cli

    print({"bash": bash, "zsh": zsh, "fish": fish}[arguments.shell](levels(cli.make_parser(lambda _: True))), end="")
    return 0


def levels(parser: argparse.ArgumentParser, words: str = "") -> list[Level]:
    """Return what may stand where, from a parser and those of its commands."""
    level = Level(words, {}, {}, {}, (), runs=False)
    found = [level]
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to ask
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for listed in action._choices_actions:  # noqa: SLF001
                level.commands[listed.dest] = listed.help or ""
            for name, own in action.choices.items():
                found += levels(own, f"{words} {name}".lstrip())
        elif action.nargs == argparse.REMAINDER:
            found[0] = level = level._replace(runs=True)
        elif action.option_strings and action.help != argparse.SUPPRESS:
            for option in action.option_strings:
                level.options[option] = (action.help or "").replace("%%", "%")
                if action.choices:
                    level.choices[option] = tuple(map(str, action.choices))
                if action.metavar == "DIR":
                    found[0] = level = level._replace(folders=(*level.folders, option))
        elif action.choices:
            level.commands.update(dict.fromkeys(map(str, action.choices), ""))
    return found


def bash(known: list[Level]) -> str:
    """Return the script for bash."""
    return f"""# Completion of {PROGRAM} for bash. In ~/.bashrc: eval "$({PROGRAM} completion bash)"
_sif_writable() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} at= index
{_walk(known, "COMP_WORDS", "1", "COMP_CWORD", 'COMPREPLY=($(compgen -c -f -- "$current")); return')}
    case "$at $previous" in
{_values(known, _BASH_WORDS + "; return", 'COMPREPLY=($(compgen -d -- "$current")); return')}
    esac
    case "$at" in
{_words(known, _BASH_WORDS)}
    esac
}}
complete -o default -F _sif_writable {PROGRAM}
"""


def zsh(known: list[Level]) -> str:
    """Return the script for zsh."""
    return f"""#compdef {PROGRAM}
# Completion of {PROGRAM} for zsh. In ~/.zshrc, after compinit: eval "$({PROGRAM} completion zsh)"
_sif_writable() {{
    local previous=${{words[CURRENT-1]}} at= index
{_walk(known, "words", "2", "CURRENT", "_normal; return")}
    case "$at $previous" in
{_values(known, "compadd -- {}; return", "_path_files -/; return")}
    esac
    case "$at" in
{_words(known, "compadd -- {}")}
    esac
}}
if [[ $funcstack[1] == _sif_writable ]]; then _sif_writable "$@"; else compdef _sif_writable {PROGRAM}; fi
"""


def _walk(known: list[Level], array: str, first: str, last: str, command: str) -> str:
    """Return the lines that find out between which commands the cursor is."""
    ways = "|".join(f'"{" ".join(parts[:-1])} {parts[-1]}"' for parts in (level.words.split() for level in known[1:]))
    return f"""    for ((index = {first}; index < {last}; index++)); do
        if [[ ${{{array}[index]}} == -- ]]; then {command}; fi
        case "$at ${{{array}[index]}}" in
            {ways}) at="${{at:+$at }}${{{array}[index]}}" ;;
        esac
    done"""


def _values(known: list[Level], choose: str, folder: str) -> str:
    lines = []
    for level in known:
        for option, choices in level.choices.items():
            lines.append(f'        "{level.words} {option}") {choose.format(" ".join(choices))} ;;')
        lines += [f'        "{level.words} {option}") {folder} ;;' for option in level.folders]
    return "\n".join(lines)


def _words(known: list[Level], choose: str) -> str:
    lines = []
    for level in known:
        words = [*level.commands, *level.options, *["--"] * level.runs]
        lines.append(f'        "{level.words}") {choose.format(" ".join(words))} ;;')
    return "\n".join(lines)


def fish(known: list[Level]) -> str:
    """Return the script for fish."""
    lines = [
        f"# Completion of {PROGRAM} for fish: {PROGRAM} completion fish > ~/.config/fish/completions/{PROGRAM}.fish",
        f"complete -c {PROGRAM} -f",
    ]
    for level in known:
        parts = level.words.split()
        where = " ; and ".join(f"__fish_seen_subcommand_from {part}" for part in parts) or "__fish_use_subcommand"
        below = [name for name in level.commands if any(other.words == f"{level.words} {name}" for other in known)]
        if parts and below:
            where += f" ; and not __fish_seen_subcommand_from {' '.join(below)}"
        start = f"complete -c {PROGRAM} -n {shlex.quote(where)}"
        lines += [f"{start} -a {name} -d {_quoted(words)}" for name, words in level.commands.items()]
        for option, words in level.options.items():
            flag = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            value = f" -x -a {_quoted(' '.join(level.choices[option]))}" if option in level.choices else ""
            value = " -r -a '(__fish_complete_directories)'" if option in level.folders else value
            lines.append(f"{start} {flag} -d {_quoted(words)}{value}")
        if level.runs:
            lines.append(f"{start} -a '(__fish_complete_subcommand)'")
    return "\n".join(lines) + "\n"


def _quoted(words: str) -> str:
    escaped = words.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
