"""The decisions as tables: facts in, plan out; nothing here touches the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sif_writable import settings
from sif_writable.redirects import decide, locations, templates
from sif_writable.redirects.beside import CARRIED, HIDING, STAYING, USED_BY
from sif_writable.redirects.catalog import OPT_IN, ROWS
from sif_writable.storage import candidates
from sif_writable.storage.candidates import Candidate
from tests.lab.decisions import HOME_WORKS, Ground, make_facts, make_storage

if TYPE_CHECKING:
    from pathlib import Path

    from sif_writable.storage.chosen import Storage
    from sif_writable.system.surroundings import Facts


def decided(
    environ: dict[str, str] | None = None,
    facts: Facts | None = None,
    storage: Storage | None = None,
    ground: Ground = HOME_WORKS,
) -> dict[str, str]:
    """Return variable to value of what is redirected."""
    decision = decide.decide(facts or make_facts(), storage or make_storage(), ground, environ or {})
    return {redirect.variable: redirect.value for redirect in decision.redirects}


def left(environ: dict[str, str], **more: Any) -> dict[str, str]:
    """Return variable to reason of what is left alone."""
    decision = decide.decide(
        more.get("facts") or make_facts(),
        more.get("storage") or make_storage(),
        more.get("ground", HOME_WORKS),
        environ,
    )
    return dict(decision.skipped)


BROKEN = make_facts(home="/home/missing", home_problem="names a directory that does not exist")


def test_with_a_home_that_works_only_what_must_be_keyed_or_lies_in_the_image_moves() -> None:
    always = {row[0] for row in ROWS if row[2] == "always"}
    in_image = {row[0] for row in ROWS if row[3] and row[3][0].startswith(("PURELIB", "PREFIX"))}
    assert set(decided()) == always | in_image
    assert {"NUMBA_CACHE_DIR", "MPLCONFIGDIR", "PYTENSOR_FLAGS", "TRITON_CACHE_DIR"} <= always
    assert not {"HF_HUB_CACHE", "XDG_CACHE_HOME"} & (always | in_image)


def test_with_a_broken_home_every_row_below_home_moves() -> None:
    below_home = {
        row[0] for row in ROWS if row[3] and row[3][0].partition("/")[0] in ("HOME", "CACHE", "CONFIG", "DATA", "STATE")
    }
    assert below_home - set(HIDING) <= set(decided(facts=BROKEN))


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_what_the_user_set_is_left_alone(row: tuple[Any, ...]) -> None:
    for ground, facts in ((HOME_WORKS, make_facts()), (Ground(), BROKEN)):
        value = "compiledir=/u" if row[5] == "flags" else "/mine"
        assert row[0] not in decided({row[0]: value}, facts=facts, ground=ground, storage=make_storage(given=True))


@pytest.mark.parametrize(("variable", "parent"), [(row[0], parent) for row in ROWS for parent in row[4]], ids=str)
def test_aliases_and_parents_count_as_set(variable: str, parent: str) -> None:
    assert variable not in decided({parent: "/mine"}, facts=BROKEN, ground=Ground())
    assert parent in left({parent: "/mine"}, facts=BROKEN, ground=Ground())[variable]


@pytest.mark.parametrize(
    ("environ", "ground", "moves"),
    [
        ({"XDG_CACHE_HOME": "/mine"}, Ground(writable=("/home/u", "/mine", "/tmp")), False),
        ({"XDG_CACHE_HOME": "/leaked/from/host"}, Ground(writable=("/home/u", "/tmp"), read_only=("/",)), True),
    ],
    ids=["it works", "it leads nowhere in this container"],
)
def test_a_parent_that_the_user_set(environ: dict[str, str], ground: Ground, moves: bool) -> None:
    assert ("NUMBA_CACHE_DIR" in decided(environ, ground=ground)) is moves
    assert ("HF_HUB_CACHE" in decided(environ, ground=ground)) is moves
    assert "XDG_CACHE_HOME" not in decided(environ, ground=ground)


def test_a_given_place_takes_every_location() -> None:
    moved = decided(storage=make_storage(given=True))
    assert set(moved) == {row[0] for row in ROWS} - set(HIDING)


# --- What the user has is found.


def found(ground: Ground, *variables: str, environ: dict[str, str] | None = None, **more: Any) -> list[Any]:
    """Return the redirects of these variables, None for what is left alone, with a place that the user gave."""
    facts = more.get("facts") or make_facts()
    storage = more.get("storage") or make_storage(given=True)
    decision = decide.decide(facts, storage, ground, environ or {})
    by_name = {redirect.variable: redirect for redirect in decision.redirects}
    return [by_name.get(variable) for variable in variables]


def has(*paths: str) -> Ground:
    """Return a ground where these directories below HOME are there and work."""
    return Ground(writable=("/home/u", "/home/u/.cache", "/tmp", *(f"/home/u/{path}" for path in paths)))


def test_a_given_place_offers_what_the_default_holds() -> None:
    ground = has(".cache/torch", ".cache/huggingface/hub", ".ipython", ".cache/numba", ".cache/huggingface/xet")
    torch, hub, ipython, numba, xet = found(
        ground, "TORCH_HOME", "HF_HUB_CACHE", "IPYTHONDIR", "NUMBA_CACHE_DIR", "HF_XET_CACHE"
    )
    assert torch.sources == (("/home/u/.cache/torch", 3),)
    assert hub.sources == (("/home/u/.cache/huggingface/hub", 1),)
    assert ipython.sources == (("/home/u/.ipython", 1),)
    assert {redirect.offers for redirect in (torch, hub, ipython)} == {"linked"}
    assert torch.make  # even where the package itself would make it
    assert (numba.sources, xet.sources, numba.offers) == ((), (), "")
    (none,) = found(has(), "TORCH_HOME")
    assert (none.sources, none.make, none.offers) == ((), False, "")


def test_a_given_place_is_one_entry_of_a_list() -> None:
    ground = has("R", ".julia", ".conda/pkgs", "nilearn_data")
    values = [r.value for r in found(ground, "R_LIBS_USER", "JULIA_DEPOT_PATH", "CONDA_PKGS_DIRS", "NILEARN_DATA")]
    assert values == [
        "/s/image-i/compiled-t/r-library:/home/u/R/%p-library/%v",
        "/s/image-i/compiled-t/julia:/home/u/.julia:",
        "/s/data/conda,/home/u/.conda/pkgs",
        "/s/data/nilearn:/home/u/nilearn_data",
    ]
    values = [r.value for r in found(has(), "R_LIBS_USER", "JULIA_DEPOT_PATH", "CONDA_PKGS_DIRS", "NILEARN_DATA")]
    assert values == [
        "/s/image-i/compiled-t/r-library",
        "/s/image-i/compiled-t/julia:",
        "/s/data/conda",
        "/s/data/nilearn",
    ]


def test_environments_stay_where_they_are_although_a_place_is_given() -> None:
    for variable in STAYING:
        default = next(row[3][0] for row in ROWS if row[0] == variable).replace("CACHE", ".cache")
        (redirect,) = found(has(default), variable)
        assert (redirect.value, redirect.folder) == (f"/home/u/{default}", "")  # pinned, since ~/.cache moves
        (redirect,) = found(has(), variable)
        assert redirect.folder.startswith("/s/")


@pytest.mark.parametrize(
    ("facts", "ground", "environ", "value"),
    [
        (None, HOME_WORKS, {}, None),
        (BROKEN, Ground(), {}, None),
        (BROKEN, Ground(), {"SIF_WRITABLE_HOME": "keep"}, "/s/data/nltk"),
        (None, Ground(writable=("/home/u",), read_only=("/home/u/nltk_data",)), {}, "/s/data/nltk:/home/u/nltk_data"),
        (BROKEN, Ground(read_only=("/home/missing/nltk_data",)), {}, "/s/data/nltk:/home/missing/nltk_data"),
        (BROKEN, Ground(writable=("/home/missing/nltk_data",)), {}, None),
    ],
    ids=["works", "repaired", "kept broken", "read-only default", "read-only below a repaired HOME", "a bind"],
)
@pytest.mark.parametrize("given", [False, True])
def test_a_variable_that_hides_is_set_only_where_nothing_else_serves(
    facts: Facts | None, ground: Ground, environ: dict[str, str], value: str | None, *, given: bool
) -> None:
    (redirect,) = found(ground, "NLTK_DATA", facts=facts, environ=environ, storage=make_storage(given=given))
    assert (redirect and redirect.value) == value
    assert redirect is None or (redirect.seeds, redirect.sources) == ((), ())  # links out of it are refused by nltk


def test_what_is_baked_goes_into_the_image_and_has_nothing_of_the_builders() -> None:
    storage = make_storage(given=True)
    for slot in storage.slots.values():
        slot.place.of_image = True
    ground = has(".cache/torch", "R", ".cache/uv", "nltk_data")
    torch, r, uv, nltk = found(ground, "TORCH_HOME", "R_LIBS_USER", "UV_CACHE_DIR", "NLTK_DATA", storage=storage)
    assert torch.sources == ()
    assert r.value == "/s/image-i/compiled-t/r-library"
    assert uv.value == "/s/data/uv"
    assert nltk.value == "/s/data/nltk"


def test_settings_of_a_packages_own_file_are_not_overruled() -> None:
    texts = {"/home/u/.config/pip/pip.conf": "[global]\ncache-dir = /mine\n", "/home/u/.ansible.cfg": "local_tmp = /x"}
    ground = Ground(writable=("/home/u", "/tmp"), texts=texts)
    pip, local, remote = found(ground, "PIP_CACHE_DIR", "ANSIBLE_LOCAL_TEMP", "ANSIBLE_REMOTE_TEMP")
    assert pip is None
    assert local is None
    assert remote


def test_nni_has_a_place_for_its_settings() -> None:
    for facts in (make_facts(), BROKEN):
        (redirect,) = found(HOME_WORKS, "NNI_CONFIG_DIR", facts=facts, storage=make_storage())
        assert redirect.value == "/s/image-i/config/nni"
    ground = Ground(writable=("/home/u", "/home/u/.config/nni"), read_only=("/opt/venv/nni",))
    (redirect,) = found(ground, "NNI_CONFIG_DIR", storage=make_storage())
    assert redirect.seeds == ("/opt/venv/nni",)  # registered algorithms of the image
    assert redirect.sources == (("/opt/venv/nni", 1), ("/home/u/.config/nni", 1))


def test_cffi_is_left_alone() -> None:
    assert "CFFI_TMPDIR" not in decided(facts=BROKEN)


def test_a_read_only_default_moves_and_seeds() -> None:
    ground = Ground(
        writable=("/home/u", "/tmp"),
        read_only=("/home/u/.cache", "/home/u/.cache/huggingface", "/home/u/.cache/huggingface/hub"),
    )
    decision = decide.decide(make_facts(), make_storage(), ground, {})
    hub = next(redirect for redirect in decision.redirects if redirect.variable == "HF_HUB_CACHE")
    assert hub.seeds == ("/home/u/.cache/huggingface/hub",)
    assert hub.make
    warm = decide.decide(make_facts(), make_storage(present=("huggingface-hub", "cache")), ground, {})
    assert not any(r.make for r in warm.redirects if r.variable in ("HF_HUB_CACHE", "XDG_CACHE_HOME"))


def test_a_writable_bind_below_a_home_that_moves_is_pinned() -> None:
    ground = Ground(writable=("/root/.cellpose/models", "/root/.deepface", "/root/.deepface/weights", "/tmp"))
    facts = make_facts(home="/root", home_problem="cannot be written by this user")
    moved = decided(facts=facts, ground=ground)
    assert moved["CELLPOSE_LOCAL_MODELS_PATH"] == "/root/.cellpose/models"
    assert moved["KIVY_HOME"] == "/s/image-i/config/kivy"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (None, "base_compiledir=/s/image-i/compiled-t/pytensor"),
        ("", "base_compiledir=/s/image-i/compiled-t/pytensor"),
        ("device=cpu", "device=cpu,base_compiledir=/s/image-i/compiled-t/pytensor"),
        ("compiledir=/u", None),
        ("device=cpu,base_compiledir=/u", None),
    ],
)
def test_composite_flags_are_merged(flags: str | None, expected: str | None) -> None:
    environ = {} if flags is None else {"PYTENSOR_FLAGS": flags}
    assert decided(environ).get("PYTENSOR_FLAGS") == expected


def test_a_configuration_file_of_the_user_decides_too() -> None:
    ground = Ground(writable=("/home/u", "/tmp"), texts={"/home/u/.pytensorrc": "[global]\nbase_compiledir=/mine\n"})
    assert "PYTENSOR_FLAGS" not in decided(ground=ground)


def test_lists_keep_what_is_built_in() -> None:
    moved = decided(facts=BROKEN, ground=Ground(read_only=("/opt/venv/pkgs",)))
    assert moved["JULIA_DEPOT_PATH"].endswith("/julia:")
    assert moved["CONDA_PKGS_DIRS"].endswith(",/opt/venv/pkgs")


def test_without_a_place_for_object_code_the_others_still_move() -> None:
    storage = make_storage(without=("compiled",))
    moved = decided(facts=BROKEN, storage=storage)
    assert "NUMBA_CACHE_DIR" not in moved
    assert moved["HF_HUB_CACHE"] == "/s/data/huggingface-hub"
    assert left({}, facts=BROKEN, storage=storage)["NUMBA_CACHE_DIR"] == "no place was found for compiled files"


def test_all_but_sockets_leaves_the_session_tmpfs() -> None:
    facts = make_facts(session_device=7)
    moved = decided(facts=facts)
    assert moved["HF_HUB_CACHE"] == "/s/data/huggingface-hub"
    assert moved["KIVY_HOME"] == "/s/image-i/config/kivy"
    assert moved["WARP_CACHE_PATH"] == "/s/image-i/compiled-t/warp"
    assert moved["QUACK_CACHE_DIR"] == "/s/image-i/compiled-t/quack"
    assert not {"TMPDIR", "JUPYTER_RUNTIME_DIR"} & set(moved)
    storage = make_storage()
    storage.roomy = True
    assert decided(facts=facts, storage=storage)["TMPDIR"] == "/s/run/tmp"
    storage.small, storage.roomy = True, False
    moved = decided(facts=facts, storage=storage)
    assert not {"HF_HUB_CACHE", "KIVY_HOME", "WARP_CACHE_PATH", "TMPDIR"} & set(moved)


def test_what_home_serves_elsewhere_leaves_the_session_tmpfs() -> None:
    facts = make_facts(session_device=7)
    moved = decided(facts=facts)
    assert moved["KERAS_HOME"] == "/s/data/keras"
    assert moved["MLFLOW_ENV_ROOT"] == "/s/image-i/compiled-t/mlflow-envs"
    assert not {"GOPATH", "TIKTOKEN_CACHE_DIR", "PREFECT_HOME"} & set(moved)
    assert decided({"KERAS_HOME": "/k"}, facts=facts).get("KERAS_HOME") is None
    others = (make_facts(), BROKEN, make_facts(session_device=7, home="/home/u/bound"))
    assert not any("KERAS_HOME" in decided(facts=other) for other in others)
    storage = make_storage()
    storage.small = True
    assert "KERAS_HOME" not in decided(facts=facts, storage=storage)


def test_what_is_bound_into_a_small_home_stays() -> None:
    """The user gave it: it is on another filesystem than the HOME above it."""
    ground = Ground(writable=("/home/u/bound",), read_only=())
    moved = decided({"XDG_CACHE_HOME": "/home/u/bound"}, facts=make_facts(session_device=7), ground=ground)
    assert "HF_HUB_CACHE" not in moved
    assert moved["KIVY_HOME"] == "/s/image-i/config/kivy"


def test_that_no_place_has_room_for_temporary_files_is_said() -> None:
    decision = decide.decide(make_facts(session_device=7), make_storage(), HOME_WORKS, {})
    assert [note for note in decision.notes if "small tmpfs" in note and "--workdir" in note]


@pytest.mark.parametrize(
    ("mode", "problem", "private"),
    [
        ("", "", False),
        ("auto", "", False),
        ("redirect", "", True),
        ("", "is empty", True),
        ("AUTO", "is empty", True),
        ("keep", "is empty", False),
        ("nonsense", "is empty", True),
    ],
)
def test_home(mode: str, problem: str, private: bool) -> None:
    facts = make_facts(home_problem=problem)
    decision = decide.decide(facts, make_storage(), HOME_WORKS, {"SIF_WRITABLE_HOME": mode})
    assert decision.home == ("/s/image-i/home" if private else "")
    assert decision.home_made is False
    assert decide.decide(facts, make_storage(present=("home",)), HOME_WORKS, {}).home_made is bool(problem)
    nowhere = decide.decide(facts, make_storage(without=("image", "config")), HOME_WORKS, {"SIF_WRITABLE_HOME": mode})
    assert nowhere.home == ""


@pytest.mark.parametrize(
    ("ships", "environ", "expected"),
    [(True, {}, ""), (False, {}, "/s/image-i/compiled-t/pycache"), (False, {"PYTHONPYCACHEPREFIX": "/x"}, "")],
)
def test_bytecode_moves_only_where_the_image_ships_none(ships: bool, environ: dict[str, str], expected: str) -> None:
    facts = make_facts(ships_bytecode=ships)
    assert decide.decide(facts, make_storage(), HOME_WORKS, environ).pycache == expected


def test_opt_in_rows_are_switched_on_by_name() -> None:
    assert not {row[0] for row in OPT_IN} & set(decided())
    moved = decided({"SIF_WRITABLE_OPT_IN": "JAX_COMPILATION_CACHE_DIR, CUPY_CACHE_IN_MEMORY"})
    assert moved["JAX_COMPILATION_CACHE_DIR"].startswith("/s/image-i/compiled-t/")
    assert moved["CUPY_CACHE_IN_MEMORY"] == "1"
    notes = decide.decide(make_facts(), make_storage(), HOME_WORKS, {"SIF_WRITABLE_OPT_IN": "HF_HOME"}).notes
    assert any("'HF_HOME'" in note and "JAX_COMPILATION_CACHE_DIR" in note for note in notes)


OPTIONAL = [row[0] for row in OPT_IN]


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        (
            {"SIF_WRITABLE": "maybe"},
            "SIF_WRITABLE='maybe' is not understood and counts as unset; allowed: auto, on, off",
        ),
        (
            {"SIF_WRITABLE_HOME": "yes"},
            "SIF_WRITABLE_HOME='yes' is not understood and counts as unset; allowed: auto, keep, redirect",
        ),
        (
            {"SIF_WRITABLE_STRICT": "true"},
            "SIF_WRITABLE_STRICT='true' is not understood and counts as unset; allowed: 0, 1",
        ),
        ({"SIF_WRITABLE": "0", "SIF_WRITABLE_HOME": "KEEP", "SIF_WRITABLE_OPT_IN": OPTIONAL[0]}, None),
        (
            {"SIF_WRITABLE_OPT_IN": f"{OPTIONAL[0]},NOTHING"},
            f"SIF_WRITABLE_OPT_IN names 'NOTHING', which can not be switched on; allowed: {', '.join(OPTIONAL)}",
        ),
    ],
)
def test_values_that_are_not_understood_are_named(environ: dict[str, str], words: str | None) -> None:
    assert settings.misunderstood(environ, OPTIONAL) == ([words] if words else [])


@pytest.mark.parametrize(
    ("facts", "environ", "labels"),
    [
        (
            make_facts(),
            {},
            ["the user's cache directory", "/var/tmp", "/tmp", "/dev/shm"],
        ),
        (
            make_facts(target_mounted=True),
            {"SIF_WRITABLE_DIR": "/d", "SLURM_TMPDIR": "/l", "SCRATCH": "/c", "TMPDIR": "/t", "XDG_CACHE_HOME": "/x"},
            [
                "SIF_WRITABLE_DIR",
                "the bind at /sif-writable",
                "XDG_CACHE_HOME",
                "the user's cache directory",
                "SLURM_TMPDIR",
                "SCRATCH",
                "TMPDIR",
                "/var/tmp",
                "/tmp",
                "/dev/shm",
            ],
        ),
        (BROKEN, {"SCRATCH": "relative"}, ["/var/tmp", "/tmp", "/dev/shm"]),
        (
            make_facts(home_problem="is empty", prefix_writable=True),
            {},
            ["the image's own /var/cache, writable here", "/var/tmp", "/tmp", "/dev/shm"],
        ),
    ],
    ids=["default", "everything given", "home broken", "overlay"],
)
def test_candidates_in_order(facts: Facts, environ: dict[str, str], labels: list[str]) -> None:
    assert [place.label for place in candidates.places(facts, environ)] == labels


@pytest.mark.parametrize(
    ("given", "shared", "root"),
    [
        (True, False, "/d/sif-writable"),
        (True, True, "/d/sif-writable-1000"),
        (False, False, "/d/sif-writable"),
        (False, True, "/d/sif-writable-1000"),
    ],
)
def test_each_place_gets_one_folder_and_one_per_user_where_others_write_too(
    given: bool, shared: bool, root: str
) -> None:
    assert candidates.storage_root(Candidate("x", "/d", "node", given=given), shared=shared, user=1000) == root


def test_the_users_own_settings_stay_in_force() -> None:
    decision = decide.decide(make_facts(), make_storage(), HOME_WORKS, {})
    settings = ("MPLCONFIGDIR", "MATPLOTLIBRC", "/home/u/.config/matplotlib/matplotlibrc")
    assert settings in decision.companions
    taken = {variable: "/mine" for _, variable, _ in CARRIED}
    assert not decide.decide(make_facts(), make_storage(), HOME_WORKS, taken).companions


@pytest.mark.parametrize(
    ("home", "template", "path"),
    [
        ("/home/u", "CACHE/numba", "/home/u/.cache/numba"),
        ("/", "CACHE/numba", "/.cache/numba"),
        ("/", "HOME/.kivy", "/.kivy"),
        ("", "HOME/.kivy", ""),
        ("", "CACHE/x", ""),
        ("/home/u", "/var/tmp/x_{user}", "/var/tmp/x_ann"),
        ("/home/u", "TMP", "/tmp"),
    ],
)
def test_templates(home: str, template: str, path: str) -> None:
    environ = {"USER": "ann"}
    assert templates.resolve(template, templates.default_bases(make_facts(home=home), environ), environ) == path


# --- Folders of packages that are not in the image


def test_what_nobody_uses_gets_no_folder_and_what_is_installed_has_it() -> None:
    storage = make_storage(given=True)

    def made(installed: str) -> set[str]:
        ground = Ground(writable=("/home/u", "/tmp"), installed=installed)
        decision = decide.decide(make_facts(), storage, ground, {})
        return {redirect.variable for redirect in decision.redirects if redirect.make}

    bases = {"XDG_CACHE_HOME", "TMPDIR"}
    assert made("numpy\0numpy-2.0.dist-info") == bases
    assert made("matplotlib\0__editable___mne_1_12_finder.py") == {*bases, "MPLCONFIGDIR", "MNE_DATA"}


@pytest.mark.parametrize(("variable", "words", "in_any_case"), USED_BY)
def test_a_variable_is_set_without_its_folder_only_where_its_package_makes_that(
    variable: str, words: str, in_any_case: bool
) -> None:
    def values(installed: str) -> dict[str, str]:
        return decided(facts=BROKEN, ground=Ground(installed=installed), storage=make_storage(given=True))

    assert (variable in values("")) == in_any_case
    for word in words.split():
        assert variable in values(word) or variable in HIDING


def test_every_folder_that_must_exist_has_an_entry() -> None:
    made = {row.variable for row in ROWS if row.shape in ("mkdir", "base", "path_list", "path_list_open")}
    assert made - {variable for variable, _, _ in USED_BY} == {"XDG_CACHE_HOME", "TMPDIR"}


def test_what_the_image_or_the_user_has_there_makes_the_folder_all_the_same() -> None:
    seeded = Ground(writable=("/home/u",), read_only=("/home/u/.ipython",), installed="")
    linked = Ground(writable=("/home/u", "/home/u/.kivy/config.ini"), installed="")
    for ground, variable in ((seeded, "IPYTHONDIR"), (linked, "KIVY_HOME")):
        decision = decide.decide(make_facts(), make_storage(given=True), ground, {})
        assert {redirect.variable: redirect.make for redirect in decision.redirects}[variable]


def test_programs_of_the_image_count_as_well_as_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(locations, "_ROOTS", (str(tmp_path),))
    ground = locations.Locations("/home/u")
    assert not ground.installs("no-such-package bin/R")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "R").touch()
    assert ground.installs("no-such-package bin/R")
    assert ground.installs("no-such-package PyTest".lower())
