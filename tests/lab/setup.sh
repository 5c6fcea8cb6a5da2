# shellcheck shell=bash
# Sourced by tests/run and container/demo from the repository: gives $python, an interpreter that can make virtual
# environments (installed on Debian with root when there is none), $lab and $venv, the lab's environment.
lab=${SIF_WRITABLE_LAB:-$PWD/.lab}
venv=$lab/venv

can_make_venvs() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; }

find_python() {
    local name
    for name in python3.11 /usr/bin/python3.11 python3.12 python3.13 python3.14 python3.10 python3.9 python3 /usr/bin/python3; do
        if can_make_venvs "$name"; then echo "$name"; return; fi
    done
    return 1
}

say_what_comes() {  # for container/demo
    local packages=()
    find_python >/dev/null || packages+=(python3 python3-venv)
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v apptainer singularity >/dev/null; then
        command -v mmdebstrap >/dev/null || packages+=(mmdebstrap)
    fi
    echo "What comes now takes about three minutes the first time, and seconds later. It"
    if [ ${#packages[@]} != 0 ]; then echo "  - installs by apt-get, where this is Debian and you are root: ${packages[*]}"; fi
    echo "  - makes $venv, a Python environment with what builds the wheel"
    echo "  - fetches packages, a small Debian, and Apptainer where there is none, and builds an image: 2 GB in $lab"
    echo "Nothing else on this machine is changed."
    export LAB_INSTALLS="${packages[*]}"
}

make_venv() {  # make_venv WHAT_PIP_INSTALLS...
    local python
    if ! python=$(find_python); then
        if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
            echo "$0 needs a Python >= 3.9 with venv (on Debian: apt-get install python3-venv)" >&2
            exit 1
        fi
        apt-get -qq update >/dev/null
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends python3 python3-venv >/dev/null
        python=$(find_python)
    fi
    mkdir -p "$lab"
    if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then "$python" -m venv --clear "$venv"; fi
    local pip=("$venv/bin/python" -m pip -qq --disable-pip-version-check)
    "${pip[@]}" install 'pip>=25.1'  # the first that reads dependency groups
    "${pip[@]}" install "$@"
}
