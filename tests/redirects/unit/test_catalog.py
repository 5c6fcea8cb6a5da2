"""The table of known locations against the facts that it was made from, and against the rules of its own shape."""

from __future__ import annotations

import ast
import fnmatch
import re
from collections import Counter
from typing import Any

import pytest

from sif_writable.redirects import beside, catalog, never_set
from sif_writable.storage import kinds
from tests.redirects import presence

EVERY_ROW = catalog.ROWS + catalog.OPT_IN
VARIABLES = {row[0]: row for row in EVERY_ROW}
KINDS = {kinds.DATA, kinds.COMPILED, kinds.CONFIG, kinds.RUNTIME}
BASES = {"HOME", "CACHE", "CONFIG", "DATA", "STATE", "TMP", "CWD", "PURELIB", "PREFIX"}
FORMS = {"dir", "mkdir", "flags", "path_list", "path_list_open", "comma_list"}

NOT_ROWS = {
    "USER": "identity, not a location",
    "LOGNAME": "identity, not a location",
    "CFFI_TMPDIR": "hides modules that are compiled beside their source",
    "DGLBACKEND": "not a location: counts as set for DGLDEFAULTDIR",
    "NILEARN_SHARED_DATA": "the site's shared data: NILEARN_DATA alone makes downloads work",
}
"""Variables of a fact that asks to be set, which are no rows on purpose."""

NOT_FACTS = {"ANSIBLE_LOCAL_TEMP", "ANSIBLE_REMOTE_TEMP", "ANSIBLE_SSH_CONTROL_PATH_DIR", "NNI_CONFIG_DIR"}
"""Rows that the facts do not have: from the corpus of cases, and from reports."""

MUST_EXIST = {  # their packages do not make the directory, or make it without its parents
    "XDG_CACHE_HOME",
    "ASTROPY_CACHE_DIR",
    "MNE_DATA",
    "PYCUDA_CACHE_DIR",
    "PYTORCH_KERNEL_CACHE_PATH",
    "CUTE_DSL_CACHE_DIR",
    "PYVISTA_USERDATA_PATH",
    "NLTK_DATA",
    "R_LIBS_USER",
    "TMPDIR",
    "OPENMM_CACHE_DIR",
    "DEEPCHEM_DATA_DIR",
    "TOTALSEG_HOME_DIR",
    "KIVY_HOME",
}
EXECUTED = {  # what is compiled there is loaded and run
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "TORCH_EXTENSIONS_DIR",
    "FLASHINFER_WORKSPACE_BASE",
    "TILELANG_CACHE_DIR",
    "CUPY_CACHE_DIR",
    "PYTENSOR_FLAGS",
}

# (the var of a fact, its advice).
FACTS = (
    ("XDG_CACHE_HOME", "if_unwritable"),
    ("XDG_CONFIG_HOME", "never"),
    ("XDG_DATA_HOME", "never"),
    ("XDG_STATE_HOME", "if_unwritable"),
    ("XDG_RUNTIME_DIR", "never"),
    ("XDG_CONFIG_DIRS / XDG_DATA_DIRS", "never"),
    ("HOME", "never"),
    ("USER / LOGNAME", "set_if_uid_has_no_passwd_entry"),
    ("TMPDIR", "if_unwritable"),
    ("PYTHONPYCACHEPREFIX", "opt_in"),
    ("PYTHONUSERBASE", "never"),
    ("PYTHON_EGG_CACHE", "if_unwritable"),
    ("PIP_CACHE_DIR", "if_unwritable"),
    ("UV_CACHE_DIR", "if_unwritable"),
    ("UV_PYTHON_INSTALL_DIR", "never"),
    ("UV_TOOL_DIR / UV_TOOL_BIN_DIR", "never"),
    ("UV_CREDENTIALS_DIR", "never"),
    ("POETRY_CACHE_DIR", "if_unwritable"),
    ("POETRY_CONFIG_DIR / POETRY_DATA_DIR / POETRY_HOME", "never"),
    ("PRE_COMMIT_HOME", "if_unwritable"),
    ("VIRTUALENV_OVERRIDE_APP_DATA", "if_unwritable"),
    ("CONDA_PKGS_DIRS", "if_unwritable"),
    ("CONDA_ENVS_PATH / CONDA_ENVS_DIRS", "never"),
    ("CONDARC / CONDA_PREFIX / MAMBA_ROOT_PREFIX", "never"),
    ("CCACHE_DIR", "if_unwritable"),
    ("BLACK_CACHE_DIR", "if_unwritable"),
    ("MYPY_CACHE_DIR", "opt_in"),
    ("PYRIGHT_PYTHON_CACHE_DIR", "if_unwritable"),
    ("HYPOTHESIS_STORAGE_DIRECTORY", "opt_in"),
    ("(none) jedi / parso", "via XDG_CACHE_HOME"),
    ("PLAYWRIGHT_BROWSERS_PATH", "never"),
    ("npm_config_cache", "opt_in"),
    ("GOCACHE / GOMODCACHE / GOPATH", "opt_in"),
    ("CARGO_HOME / RUSTUP_HOME", "never"),
    ("NUMBA_CACHE_DIR", "always"),
    ("NUMBA_CACHE_DIR (numba-cuda)", "always"),
    ("TRITON_HOME", "if_unwritable"),
    ("TRITON_CACHE_DIR", "always"),
    ("TRITON_DUMP_DIR / TRITON_OVERRIDE_DIR", "never"),
    ("TORCHINDUCTOR_CACHE_DIR", "always"),
    ("TORCH_EXTENSIONS_DIR", "always_keyed"),
    ("PYTORCH_KERNEL_CACHE_PATH", "always_mkdir"),
    ("TORCH_HOME", "if_unwritable"),
    ("QUACK_CACHE_DIR", "if_unwritable"),
    ("TORCH_COMPILE_DEBUG_DIR", "opt_in"),
    ("CUDA_CACHE_PATH", "always"),
    ("CUDA_CACHE_MAXSIZE", "opt_in"),
    ("CUPY_CACHE_DIR", "always"),
    ("CUPY_CACHE_IN_MEMORY", "opt_in"),
    ("JAX_COMPILATION_CACHE_DIR", "opt_in"),
    ("WARP_CACHE_PATH", "if_unwritable"),
    ("TI_OFFLINE_CACHE_FILE_PATH", "if_unwritable"),
    ("PYCUDA_CACHE_DIR", "always_mkdir"),
    ("(none) pyopencl", "via XDG_CACHE_HOME"),
    ("(none) pytools", "via XDG_CACHE_HOME"),
    ("POCL_CACHE_DIR", "always"),
    ("TILELANG_CACHE_DIR", "always"),
    ("TILELANG_TMP_DIR", "never"),
    ("CUTE_DSL_CACHE_DIR", "always_mkdir"),
    ("CUTE_DSL_DUMP_DIR", "never"),
    ("FLASH_ATTENTION_CUTE_DSL_CACHE_DIR", "if_unwritable"),
    ("(none) flash-attn 2/3, xformers, bitsandbytes", "none"),
    ("FLASHINFER_WORKSPACE_BASE", "always"),
    ("FLASHINFER_CUBIN_DIR", "never"),
    ("VLLM_CACHE_ROOT", "if_unwritable"),
    ("VLLM_CONFIG_ROOT", "never"),
    ("VLLM_ASSETS_CACHE", "if_unwritable"),
    ("VLLM_RPC_BASE_PATH", "opt_in"),
    ("SGLANG_CACHE_DIR", "always"),
    ("SGLANG_DG_CACHE_DIR / DG_JIT_CACHE_DIR", "opt_in"),
    ("SGLANG_JIT_CACHE_DIR", "opt_in"),
    ("(deepspeed)", "via TORCH_EXTENSIONS_DIR/TRITON_CACHE_DIR"),
    ("FLA_CONFIG_DIR", "never"),
    ("OPENMM_CACHE_DIR", "if_unwritable"),
    ("PYTENSOR_FLAGS", "always_append"),
    ("THEANO_FLAGS / AESARA_FLAGS", "always_append"),
    ("CFFI_TMPDIR", "if_unwritable"),
    ("CYTHON_CACHE_DIR", "if_unwritable"),
    ("(none) pyximport", "none"),
    ("PYTHRANRC", "never"),
    ("MIOPEN_USER_DB_PATH / MIOPEN_CUSTOM_CACHE_DIR", "if_unwritable"),
    ("OPTIX_CACHE_PATH", "opt_in"),
    ("CUDNN_LOGDEST_DBG, CUBLAS_LOGDEST_DBG", "never"),
    ("NCCL_CONF_FILE", "never"),
    ("NCCL_DEBUG_FILE / NCCL_TOPO_DUMP_FILE", "never"),
    ("(none) TensorRT", "none"),
    ("(none) Nsight Compute / Systems", "via TMPDIR"),
    ("HF_HOME", "never"),
    ("HF_HUB_CACHE", "if_unwritable"),
    ("HF_XET_CACHE", "if_unwritable"),
    ("HF_ASSETS_CACHE", "if_unwritable"),
    ("HF_TOKEN_PATH", "never"),
    ("HF_DATASETS_CACHE", "if_unwritable"),
    ("HF_MODULES_CACHE", "always"),
    ("TRANSFORMERS_CACHE", "never"),
    ("SENTENCE_TRANSFORMERS_HOME", "never"),
    ("(none) timm, open_clip", "via HF/TORCH_HOME"),
    ("LM_HARNESS_CACHE_PATH", "always"),
    ("TIKTOKEN_CACHE_DIR", "opt_in"),
    ("KERAS_HOME", "opt_in"),
    ("TFHUB_CACHE_DIR", "if_unwritable"),
    ("TFDS_DATA_DIR", "if_unwritable"),
    ("MPLCONFIGDIR", "always"),
    ("(none) fontconfig", "via XDG_CACHE_HOME"),
    ("NLTK_DATA", "if_unwritable_mkdir_append"),
    ("(none) spacy", "none"),
    ("GENSIM_DATA_DIR", "if_unwritable"),
    ("STANZA_RESOURCES_DIR", "if_unwritable"),
    ("CORENLP_HOME", "never"),
    ("FLAIR_CACHE_ROOT", "if_unwritable"),
    ("SCIKIT_LEARN_DATA", "if_unwritable"),
    ("SEABORN_DATA", "if_unwritable"),
    ("STATSMODELS_DATA", "if_unwritable"),
    ("SKIMAGE_DATADIR", "if_unwritable"),
    ("(none) pooch users: scipy.datasets, pyvista, verde, metpy ...", "via XDG_CACHE_HOME"),
    ("LIBROSA_DATA_DIR", "if_unwritable"),
    ("LIBROSA_CACHE_DIR", "never"),
    ("KAGGLEHUB_CACHE", "if_unwritable"),
    ("KAGGLE_CONFIG_DIR", "never"),
    ("YOLO_CONFIG_DIR", "if_unwritable"),
    ("EASYOCR_MODULE_PATH", "if_unwritable"),
    ("(none) insightface", "none"),
    ("DEEPFACE_HOME", "if_unwritable"),
    ("PADDLE_PDX_CACHE_HOME", "if_unwritable"),
    ("MODELSCOPE_CACHE", "if_unwritable"),
    ("MODELSCOPE_CREDENTIALS_PATH", "never"),
    ("(none) kornia", "via TORCH_HOME"),
    ("DGL_DOWNLOAD_DIR", "if_unwritable"),
    ("DGLDEFAULTDIR / DGLBACKEND", "if_unwritable"),
    ("PYG_HOME", "if_unwritable"),
    ("DEEPCHEM_DATA_DIR", "if_unwritable"),
    ("MONAI_DATA_DIRECTORY", "never"),
    ("TOTALSEG_HOME_DIR", "if_unwritable"),
    ("TOTALSEG_WEIGHTS_PATH", "never"),
    ("nnUNet_raw / nnUNet_preprocessed / nnUNet_results", "never"),
    ("CELLPOSE_LOCAL_MODELS_PATH", "if_unwritable"),
    ("(none) scvi-tools, scanpy", "none"),
    ("CELLTYPIST_FOLDER", "if_unwritable"),
    ("(none) omnipath", "none"),
    ("(none) bioservices", "none"),
    ("(none) genomepy", "via XDG_*"),
    ("PYENSEMBL_CACHE_DIR", "if_unwritable"),
    ("ASTROPY_CACHE_DIR", "if_unwritable_mkdir"),
    ("ASTROPY_CONFIG_DIR", "never"),
    ("SUNPY_CONFIGDIR", "never"),
    ("SUNPY_DOWNLOADDIR / SUNPY_SAMPLEDIR", "if_unwritable"),
    ("(none) yt", "none"),
    ("MNE_DATA", "if_unwritable_mkdir"),
    ("MNE_DONTWRITE_HOME", "opt_in"),
    ("NILEARN_DATA / NILEARN_SHARED_DATA", "if_unwritable_append"),
    ("TEMPLATEFLOW_HOME", "if_unwritable"),
    ("DIPY_HOME", "if_unwritable"),
    ("NIPYPE_CONFIG_DIR", "never"),
    ("NIPY_USER_DIR / NIPY_DATA_PATH", "never"),
    ("PYVISTA_USERDATA_PATH", "if_unwritable_mkdir"),
    ("CARTOPY_DATA_DIR", "never"),
    ("PROJ_DATA (PROJ_LIB)", "never"),
    ("PROJ_USER_WRITABLE_DIRECTORY", "opt_in"),
    ("ROBOT_DESCRIPTIONS_CACHE", "if_unwritable"),
    ("IMAGEIO_USERDIR", "opt_in"),
    ("(none) yfinance", "via XDG_CACHE_HOME"),
    ("CLOUDPATHLIB_LOCAL_CACHE_DIR", "opt_in"),
    ("FSSPEC_CONFIG_DIR", "never"),
    ("PYSCF_TMPDIR", "opt_in"),
    ("ASE_CONFIG_PATH", "never"),
    ("ARVIZ_DATA", "if_unwritable"),
    ("(none) rdkit, statsmodels.tsa, cvxpy ...", "none"),
    ("WANDB_DIR", "never"),
    ("WANDB_CACHE_DIR", "if_unwritable"),
    ("WANDB_DATA_DIR", "if_unwritable"),
    ("WANDB_CONFIG_DIR", "never"),
    ("WANDB_ARTIFACT_DIR", "never"),
    ("MLFLOW_TRACKING_URI", "never"),
    ("MLFLOW_ENV_ROOT", "opt_in"),
    ("MLFLOW_DFS_TMP", "opt_in"),
    ("(none) tensorboard", "via TMPDIR"),
    ("COMET_OFFLINE_DIRECTORY", "never"),
    ("COMET_CONFIG", "never"),
    ("CLEARML_CACHE_DIR", "if_unwritable"),
    ("CLEARML_CONFIG_FILE", "never"),
    ("(none) neptune", "none"),
    ("RAY_TMPDIR", "opt_in"),
    ("DASK_TEMPORARY_DIRECTORY", "opt_in"),
    ("DASK_CONFIG", "never"),
    ("SPARK_LOCAL_DIRS", "opt_in"),
    ("JOBLIB_TEMP_FOLDER", "never"),
    ("IPYTHONDIR", "if_unwritable"),
    ("JUPYTER_CONFIG_DIR", "never"),
    ("JUPYTER_DATA_DIR", "never"),
    ("JUPYTER_RUNTIME_DIR", "if_unwritable"),
    ("JUPYTERLAB_SETTINGS_DIR / JUPYTERLAB_WORKSPACES_DIR", "if_unwritable"),
    ("JUPYTERLAB_DIR", "never"),
    ("KIVY_HOME", "if_unwritable"),
    ("(none) pyglet", "none"),
    ("(none) streamlit", "none"),
    ("GRADIO_TEMP_DIR", "always"),
    ("GRADIO_EXAMPLES_CACHE", "opt_in"),
    ("PREFECT_HOME", "opt_in"),
    ("GIT_CONFIG_GLOBAL", "never"),
    ("DOCKER_CONFIG", "never"),
    ("AWS_CONFIG_FILE / AWS_SHARED_CREDENTIALS_FILE / CLOUDSDK_CONFIG / NETRC", "never"),
    ("(none) keyring", "none"),
    ("JULIA_DEPOT_PATH", "if_unwritable_append"),
    ("PYTHON_JULIAPKG_PROJECT", "if_unwritable"),
    ("R_LIBS_USER", "if_unwritable_mkdir"),
    ("JAVA_TOOL_OPTIONS", "never"),
    ("PRTE_MCA_prte_tmpdir_base / OMPI_MCA_orte_tmpdir_base", "never"),
    ("PMIX_SERVER_TMPDIR / PMIX_SYSTEM_TMPDIR / PMIX_*", "never"),
    ("OMPI_MCA_btl_sm_backing_directory", "never"),
    ("UCX_CONFIG_DIR", "never"),
)

_VARIABLE = re.compile(r"[A-Za-z][A-Za-z0-9]*_[A-Za-z0-9_*]+|[A-Z][A-Z0-9]{3,}")


def variables(label: str) -> list[str]:
    """Return the variables that a fact names: none in ``(none) jedi``, two in ``PROJ_DATA (PROJ_LIB)``."""
    return [] if label.startswith("(") else _VARIABLE.findall(label)


def advised(*prefixes: str) -> set[str]:
    return {name for label, advice in FACTS if advice.startswith(prefixes) for name in variables(label)}


def is_never(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern, _ in never_set.NEVER)


def templates(row: tuple[Any, ...]) -> tuple[str, ...]:
    return row[3]  # type: ignore[no-any-return]


# --- the facts


@pytest.mark.parametrize(
    ("label", "names"),
    [
        ("NUMBA_CACHE_DIR (numba-cuda)", ["NUMBA_CACHE_DIR"]),
        ("PROJ_DATA (PROJ_LIB)", ["PROJ_DATA", "PROJ_LIB"]),
        ("CUDNN_LOGDEST_DBG, CUBLAS_LOGDEST_DBG", ["CUDNN_LOGDEST_DBG", "CUBLAS_LOGDEST_DBG"]),
        ("nnUNet_raw / PMIX_* / NETRC", ["nnUNet_raw", "PMIX_*", "NETRC"]),
        ("npm_config_cache", ["npm_config_cache"]),
        ("(none) TensorRT", []),
    ],
)
def test_variables_of_a_label(label: str, names: list[str]) -> None:
    assert variables(label) == names


def test_every_always_fact_is_a_row_that_is_always_set() -> None:
    assert advised("always") == {row[0] for row in catalog.ROWS if row[2] == catalog.ALWAYS}


def test_every_if_unwritable_fact_is_a_row_that_is_set_only_then() -> None:
    rows = {row[0] for row in catalog.ROWS if row[2] == catalog.IF_UNWRITABLE}
    assert advised("if_unwritable") - set(NOT_ROWS) == rows - NOT_FACTS


def test_every_opt_in_fact_can_be_switched_on() -> None:
    assert advised("opt_in") == {row[0] for row in catalog.OPT_IN}


def test_every_never_fact_is_untouched() -> None:
    assert [name for name in sorted(advised("never")) if not is_never(name)] == []


def test_every_fact_is_dealt_with() -> None:
    known = ("always", "if_unwritable", "opt_in", "never", "via ", "none", "set_if_uid_has_no_passwd_entry")
    assert [advice for _, advice in FACTS if not advice.startswith(known)] == []
    assert not set(NOT_ROWS) & set(VARIABLES)


def test_a_condition_of_an_advice_is_in_the_form() -> None:
    for label, advice in FACTS:
        for name in variables(label):
            if name not in VARIABLES:
                continue
            form = VARIABLES[name][5].partition(":")[0]
            if "mkdir" in advice:
                assert form in ("mkdir", "path_list"), name
            if "append" in advice:
                assert form in ("flags", "path_list", "path_list_open"), name
            if "keyed" in advice:
                assert VARIABLES[name][1] == kinds.COMPILED, name


# --- what is never set


def test_no_row_is_on_the_never_list() -> None:
    assert [row[0] for row in EVERY_ROW if is_never(row[0])] == []


def test_home_is_never_a_row() -> None:
    assert "HOME" not in VARIABLES
    assert is_never("HOME")


def test_nothing_that_is_carried_is_on_the_never_list() -> None:
    assert [second for _, second, _ in beside.CARRIED if is_never(second)] == []


@pytest.mark.parametrize("text", ["SLURM_JOB_ID", "PMIX_RANK", "OMPI_MCA_btl", "AWS_PROFILE", "XDG_DATA_DIRS"])
def test_patterns_cover_what_they_should(text: str) -> None:
    assert is_never(text)


def test_the_never_list_has_each_name_once_with_a_reason() -> None:
    names = [name for name, _ in never_set.NEVER]
    assert len(set(names)) == len(names)
    assert all(reason for _, reason in never_set.NEVER)
    assert all(re.fullmatch(r"[A-Za-z_*0-9]+", name) and name != "*" for name in names)


# --- the shape of the rows


@pytest.mark.parametrize("row", EVERY_ROW, ids=lambda row: str(row[0]))
def test_a_row_has_its_shape(row: tuple[Any, ...]) -> None:
    variable, kind, _, defaults, counts_as_set, form, folder, source = row
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", variable)
    assert kind in KINDS
    name, colon, rest = form.partition(":")
    if colon:
        assert name in ("base", "value", "path_list")
        assert rest
    else:
        assert form in FORMS
    assert bool(folder) == (name != "value")
    assert re.fullmatch(r"[A-Za-z0-9_./-]*", folder)
    assert not folder.startswith("/")
    assert ".." not in folder
    for names in (defaults, counts_as_set):
        assert isinstance(names, tuple)
        assert all(isinstance(text, str) and text for text in names)
        assert len(set(names)) == len(names)
    assert variable not in counts_as_set
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*", text) for text in counts_as_set)
    assert source


def test_a_template_has_a_known_base() -> None:
    for template in [template for row in EVERY_ROW for template in templates(row)]:
        base, slash, rest = template.partition("/")
        assert base in BASES | {""}, template
        assert bool(rest) == bool(slash), template
        assert "//" not in template
        assert ".." not in template
        assert re.sub(r"\{user\}", "", template).isprintable()
        assert not set("{}~$") & set(template.replace("{user}", "")), template


def test_a_base_names_the_place_that_the_package_ends_in() -> None:
    for row in EVERY_ROW:
        name, _, subfolder = row[5].partition(":")
        if name == "base":
            assert all(template.endswith("/" + subfolder) for template in templates(row)), row[0]


def test_when_and_defaults() -> None:
    assert {row[2] for row in catalog.ROWS} == {catalog.ALWAYS, catalog.IF_UNWRITABLE}
    assert {row[2] for row in catalog.OPT_IN} == {"opt_in"}
    assert [row[0] for row in catalog.ROWS if not row[3]] == []
    assert [row[0] for row in catalog.ROWS if row[5].startswith("value")] == []


def test_variables_and_folders_are_unique() -> None:
    for values in (
        [row[0] for row in EVERY_ROW],
        [row[6].replace("/", "-") for row in EVERY_ROW if row[6]],
    ):
        assert [value for value, times in Counter(values).items() if times > 1] == []


def test_no_parent_is_implied_twice() -> None:
    implied = {
        "CACHE": "XDG_CACHE_HOME",
        "CONFIG": "XDG_CONFIG_HOME",
        "DATA": "XDG_DATA_HOME",
        "STATE": "XDG_STATE_HOME",
    }
    for row in EVERY_ROW:
        assert "HOME" not in row[4]
        if row[3]:
            assert implied.get(row[3][0].partition("/")[0]) not in row[4], row[0]


def test_what_must_exist_is_made() -> None:
    assert {name for name in MUST_EXIST if VARIABLES[name][5].partition(":")[0] not in ("mkdir", "path_list")} == set()


def test_what_is_executed_is_compiled() -> None:
    assert {name for name in EXECUTED if VARIABLES[name][1] != kinds.COMPILED} == set()


def test_sockets_get_short_names() -> None:
    for row in EVERY_ROW:
        if row[1] == kinds.RUNTIME:
            assert len(row[6]) <= 14, row[0]


# --- the small tables beside the rows


def test_carried_linked_and_unseeded_name_rows() -> None:
    for variable, second, template in beside.CARRIED:
        assert variable in VARIABLES
        assert second not in VARIABLES
        assert template.partition("/")[0] in BASES
    for variable, name, template in beside.LINKED:
        assert VARIABLES[variable][6]
        assert not name.startswith("/")
        assert ".." not in name
        assert template.partition("/")[0] in BASES
        assert template.endswith("/" + name.rpartition("/")[2])
    assert set(beside.UNSEEDED) <= set(VARIABLES)
    assert {variable for variable, _, _ in beside.DECIDED_IN} <= set(VARIABLES)
    assert [template for _, template, _ in beside.DECIDED_IN if template.partition("/")[0] not in BASES] == []


def test_a_link_below_a_base_is_in_its_subfolder() -> None:
    for variable, name, _ in beside.LINKED:
        form, _, subfolder = VARIABLES[variable][5].partition(":")
        if form == "base":
            assert name.startswith(subfolder + "/")


def test_tables_of_what_is_found_name_rows() -> None:
    moved = {name for name, row in VARIABLES.items() if row[1] in (kinds.DATA, kinds.CONFIG) and row[3]}
    assert {variable for variable, _ in beside.LEVELS} <= moved
    assert all(0 <= levels <= 4 and levels != 1 for _, levels in beside.LEVELS)
    assert len(dict(beside.LEVELS)) == len(beside.LEVELS)
    for variable in (*beside.STAYING, *beside.HIDING):
        assert VARIABLES[variable][2] == catalog.IF_UNWRITABLE


# --- what the presence of a variable changes


def word_of(row: tuple[Any, ...]) -> str:
    """Return the word that follows from how a row is treated; the two that do not follow are of single rows."""
    form = row[5].partition(":")[0]
    if form in ("path_list", "path_list_open", "comma_list"):
        return "there too"
    levels = dict(beside.LEVELS).get(row[0], 1 if row[1] in (kinds.DATA, kinds.CONFIG) else 0)
    return "only there" if (levels and row[2] != catalog.ALWAYS) or row[0] in beside.STAYING else "anew"


def test_every_row_says_what_its_presence_changes() -> None:
    assert [variable for variable, _, _ in presence.PRESENCE] == [row[0] for row in EVERY_ROW]
    for variable, word, _ in presence.PRESENCE:
        assert word in presence.WORDS
        if word not in ("hides", "switches"):
            assert word == word_of(VARIABLES[variable]), variable


def test_what_serves_packages_without_a_variable_is_in_the_table() -> None:
    known = {*VARIABLES, "HOME", "TLDEXTRACT_CACHE"}
    for package, what in presence.SERVED_BY:
        assert set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", what)) <= known, package


def test_what_hides_or_switches_is_not_set_as_a_matter_of_course() -> None:
    found = {word: {v for v, w, _ in presence.PRESENCE if w == word} for word in presence.WORDS}
    assert found["hides"] == set(beside.HIDING)
    assert found["switches"] <= {row[0] for row in catalog.OPT_IN}


@pytest.mark.parametrize("table", ["LINKED", "CARRIED", "DECIDED_IN", "STAYING"])
def test_a_row_that_needs_a_table_names_it(table: str) -> None:
    rows = {entry if isinstance(entry, str) else entry[0] for entry in getattr(beside, table)}
    named = {variable for variable, _, note in presence.PRESENCE if table in note}
    assert named <= rows
    if table in ("CARRIED", "STAYING"):
        assert named == rows


def test_no_seed_is_a_whole_shared_directory() -> None:
    for row in EVERY_ROW:
        if row[1] == kinds.RUNTIME or row[0] in beside.UNSEEDED:
            continue
        for template in templates(row):
            assert "/" in template, row[0]
            assert template not in ("HOME/.local", "PURELIB", "PREFIX", "/tmp", "/var/tmp"), row[0]


# --- the cost


@pytest.mark.parametrize("module", [catalog, beside], ids=["catalog", "beside"])
def test_the_tables_are_made_of_constants(module: Any) -> None:
    with open(module.__file__, encoding="utf-8") as stream:
        tree = ast.parse(stream.read())
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom):
            continue
        assert isinstance(statement, (ast.Expr, ast.Assign, ast.AnnAssign))
        assert statement.value is not None
        value = statement.value
        while isinstance(value, ast.Call):  # tuple(map(Row._make, the rows))
            value = value.args[-1]
        assert all(isinstance(node, (ast.Constant, ast.Tuple, ast.Load)) for node in ast.walk(value)), (
            f"line {statement.lineno} is not a constant"
        )
