"""The known locations: which environment variable moves which package's files, and when that is right.

Imported where no earlier start has left its decisions. Inside the tables there are no names: the compiler folds
literals, and only those, into constants of the ``.pyc``.

A :class:`~.row.Row` is ``(variable, kind, when, defaults, counts_as_set, form, folder, source)``:

variable
    The environment variable that is set.
kind
    ``data``: downloads, shared between images. ``compiled``: machine code, and code that is valid for one image; kept
    per image and interpreter, where files can be executed. ``config``: settings and small files, per image.
    ``runtime``: sockets and temporary files; short path, local filesystem.
when
    ``always``: the default is not keyed by image, or not by user, so it is moved even where it can be written.
    ``if_unwritable``: only where the default cannot be written. ``opt_in``: only when the user names the variable.
defaults
    Location templates. The first is where the package writes by itself, and decides whether the default works; there
    is none for a switch, and for a feature that is off or writes beside each source file. All of them may hold files
    of the image and are seeds, except in rows of kind ``runtime`` and in ``UNSEEDED``.
    A template is an absolute path, or a base alone or with ``/REST``: ``HOME``; ``CACHE``, ``CONFIG``, ``DATA`` and
    ``STATE`` of XDG; ``TMP`` (``$TMPDIR`` or ``/tmp``); ``CWD``; ``PURELIB`` (site-packages); ``PREFIX``
    (``sys.prefix``). ``{user}`` is what ``getpass.getuser()`` returns. ``HOME/.cache/x`` where one expects ``CACHE/x``:
    the package ignores XDG.
counts_as_set
    Where one of these is in the environment, as the user left it, the user has decided: aliases, old names that are
    still read, parents. HOME and the XDG variable behind the first template are not repeated here.
form
    What the value is:

    - ``dir``: the folder. The package makes it, but not always its parents.
    - ``mkdir``: the folder, which must exist before the package looks.
    - ``base:SUB``: the folder, which must exist; the package appends ``SUB``. The templates name the place with
      ``SUB``, so a seed goes to ``FOLDER/SUB``.
    - ``flags``: ``base_compiledir=FOLDER``, appended with a comma to the user's own value, unless that names
      ``compiledir`` or ``base_compiledir``.
    - ``path_list``, ``path_list:SUB``: the folder, which must exist, in an ``os.pathsep`` list; then what the image
      brings, and the first template, with ``SUB``, where it is there.
    - ``path_list_open``: the folder and then an empty entry, which stands for the built-in list.
    - ``comma_list``: the folder in a comma-separated list that replaces the package's own, so ``PREFIX/pkgs`` of the
      image and the first template must be listed too.
    - ``value:X``: ``X`` itself; a switch without a folder.
folder
    The folder inside the kind's storage, unique over all rows also with ``-`` for ``/``. Empty for a switch.
source
    Where the facts of the row were read.

What of the user's and the image's files must be found beside them: :mod:`sif_writable.redirects.beside`. What the
presence of each variable changes, and packages that have no variable: tests/redirects/presence.py.

Not here: HOME (its repair is a decision of its own), USER and LOGNAME (set when the uid has no passwd entry), what must
never be set (:mod:`sif_writable.redirects.never_set`).
"""

from sif_writable.redirects.row import Row

ALWAYS = "always"
IF_UNWRITABLE = "if_unwritable"

# fmt: off
ROWS: "tuple[Row, ...]" = tuple(map(Row._make, (
    # --- Bases. XDG_CACHE_HOME serves every package without a variable; astropy and Cython demand that it exists.
    ("XDG_CACHE_HOME", "data", "if_unwritable", ("HOME/.cache",), (),
     "mkdir", "cache", "https://specifications.freedesktop.org/basedir/latest"),
    ("XDG_STATE_HOME", "config", "if_unwritable", ("HOME/.local/state",), (),
     "mkdir", "state", "https://specifications.freedesktop.org/basedir/latest"),
    ("TMPDIR", "runtime", "if_unwritable", ("TMP",), ("TEMP", "TMP"),
     "mkdir", "tmp", "CPython 3.11.7: tempfile.py _candidate_tempdir_list"),

    # --- Compilers and kernel caches.
    ("NUMBA_CACHE_DIR", "compiled", "always", ("CACHE/numba",), (),
     "dir", "numba", "numba 0.68.0: numba/core/caching.py; numba-cuda reads the same variable"),
    ("TRITON_CACHE_DIR", "compiled", "always", ("HOME/.triton/cache",), ("TRITON_HOME", "SGLANG_CACHE_DIR"),
     "dir", "triton", "triton 3.8.0: triton/runtime/cache.py"),
    ("TRITON_HOME", "compiled", "if_unwritable", ("HOME/.triton",), (),
     "base:.triton", "triton-home", "triton 3.8.0: triton/knobs.py cache_knobs"),
    ("TORCHINDUCTOR_CACHE_DIR", "compiled", "always", ("TMP/torchinductor_{user}",), ("SGLANG_CACHE_DIR",),
     "dir", "torchinductor", "torch 2.14.1: torch/_inductor/runtime/cache_dir_utils.py"),
    ("TORCH_EXTENSIONS_DIR", "compiled", "always", ("CACHE/torch_extensions",), (),
     "dir", "torch_extensions", "torch 2.14.1: torch/utils/cpp_extension.py:2802; pytorch/pytorch#68905"),
    ("PYTORCH_KERNEL_CACHE_PATH", "compiled", "always", ("CACHE/torch/kernels",), (),
     "mkdir", "torch_kernels", "pytorch: aten/src/ATen/native/cuda/jit_utils.cpp"),
    ("QUACK_CACHE_DIR", "compiled", "if_unwritable", ("TMP/{user}/torch_vendor_quack_cache",), (),
     "dir", "quack", "torch 2.14.1: torch/_vendor/quack/cache/__init__.py"),
    ("CUDA_CACHE_PATH", "compiled", "always", ("HOME/.nv/ComputeCache",), ("SGLANG_CACHE_DIR",),
     "dir", "cuda",
     "https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html#jit-compilation"),
    # One variable, three caches: kernels, jitify headers and FFT callbacks end in the same folder.
    ("CUPY_CACHE_DIR", "compiled", "always",
     ("HOME/.cupy/kernel_cache", "HOME/.cupy/jitify_cache", "HOME/.cupy/callback_cache"), (),
     "dir", "cupy", "cupy@6b6d9563c: cupy/cuda/_compiler_cache.py, cupy/fft/_callback.pyx"),
    # Since 1.13 warp appends its version to the variable as it does to its default; before, it uses both as they are.
    ("WARP_CACHE_PATH", "compiled", "if_unwritable", ("CACHE/warp",), (),
     "dir", "warp", "NVIDIA/warp@9934a4eb2: warp/_src/build.py init_kernel_cache"),
    ("TI_OFFLINE_CACHE_FILE_PATH", "compiled", "if_unwritable", ("CACHE/taichi/ticache",), (),
     "dir", "taichi", "taichi-dev/taichi@ba0e81dce: taichi/common/core.cpp, python/taichi/lang/misc.py"),
    ("PYCUDA_CACHE_DIR", "compiled", "always", ("CACHE/pycuda/compiler-cache-v1",), (),
     "mkdir", "pycuda", "inducer/pycuda@19bed9035: pycuda/compiler.py:80"),
    ("POCL_CACHE_DIR", "compiled", "always", ("CACHE/pocl/kcache",), (),
     "mkdir", "pocl", "pocl@5066640dc: lib/CL/pocl_cache.c, doc/sphinx/source/using.rst"),
    ("TILELANG_CACHE_DIR", "compiled", "always", ("HOME/.tilelang/cache",), ("SGLANG_CACHE_DIR",),
     "dir", "tilelang", "tile-ai/tilelang@a35008a42: tilelang/env.py"),
    ("CUTE_DSL_CACHE_DIR", "compiled", "always", ("TMP/{user}/cutlass_python_cache",), (),
     "mkdir", "cute_dsl", "NVIDIA/cutlass@7107b0553: python/CuTeDSL/cutlass/base_dsl/cache_helpers.py"),
    ("FLASH_ATTENTION_CUTE_DSL_CACHE_DIR", "compiled", "if_unwritable",
     ("TMP/{user}/flash_attention_cute_dsl_cache",), (),
     "dir", "flash_attention", "Dao-AILab/flash-attention@0251105a2: flash_attn/cute/cache_utils.py"),
    ("FLASHINFER_WORKSPACE_BASE", "compiled", "always", ("HOME/.cache/flashinfer",), ("SGLANG_CACHE_DIR",),
     "base:.cache/flashinfer", "flashinfer", "flashinfer@fb28d7242: flashinfer/jit/env.py"),
    ("VLLM_CACHE_ROOT", "compiled", "if_unwritable", ("CACHE/vllm",), (),
     "dir", "vllm", "vllm@001f69f8: vllm/envs.py"),
    ("VLLM_ASSETS_CACHE", "data", "if_unwritable", ("CACHE/vllm/assets",), (),
     "dir", "vllm-assets", "vllm@001f69f8: vllm/envs.py"),
    ("SGLANG_CACHE_DIR", "compiled", "always", ("HOME/.cache/sglang",), ("SGLANG_CACHE_ROOT", "SGL_CACHE_DIR"),
     "dir", "sglang", "sglang 0.5.23: sglang/srt/environ.py:1366,2307"),
    ("OPENMM_CACHE_DIR", "compiled", "if_unwritable", ("TMP",), (),
     "mkdir", "openmm", "openmm@1a47c2f68: platforms/cuda/src/CudaContext.cpp:106"),
    ("PYTENSOR_FLAGS", "compiled", "always", ("HOME/.pytensor",), (),
     "flags", "pytensor", "pymc-devs/pytensor@f857e6961: pytensor/configdefaults.py:971"),
    ("AESARA_FLAGS", "compiled", "always", ("HOME/.aesara",), (),
     "flags", "aesara", "predecessor of pytensor, same code (belief)"),
    ("THEANO_FLAGS", "compiled", "always", ("HOME/.theano",), (),
     "flags", "theano", "predecessor of pytensor, same code (belief)"),
    # CACHE/cython is the default only where XDG_CACHE_HOME is set and exists: hence counted as set.
    ("CYTHON_CACHE_DIR", "compiled", "if_unwritable", ("HOME/.cython", "CACHE/cython"), ("XDG_CACHE_HOME",),
     "dir", "cython", "cython 3.3.0: Cython/Build/Cache.py:54"),
    ("MIOPEN_USER_DB_PATH", "compiled", "if_unwritable", ("HOME/.config/miopen",), (),
     "mkdir", "miopen/db", "https://rocm.docs.amd.com/projects/MIOpen/en/latest/cache.html"),
    ("MIOPEN_CUSTOM_CACHE_DIR", "compiled", "if_unwritable", ("HOME/.cache/miopen",), (),
     "mkdir", "miopen/cache", "https://rocm.docs.amd.com/projects/MIOpen/en/latest/cache.html"),
    ("CCACHE_DIR", "compiled", "if_unwritable", ("CACHE/ccache", "HOME/.ccache"), ("CCACHE_CONFIGPATH",),
     "dir", "ccache", "ccache@e5731387e: doc/manual.adoc cache_dir"),
    ("PYTHON_EGG_CACHE", "compiled", "if_unwritable", ("CACHE/Python-Eggs",), (),
     "dir", "python-eggs", "setuptools 80.9.0: pkg_resources/__init__.py"),
    # The next three hold a Julia or packages with shared libraries: executable, and of one image's ABI.
    ("JULIA_DEPOT_PATH", "compiled", "if_unwritable", ("HOME/.julia",), (),
     "path_list_open", "julia",
     "https://docs.julialang.org/en/v1/base/constants/#Base.DEPOT_PATH; pyjuliapkg: src/juliapkg/state.py:54"),
    ("PYTHON_JULIAPKG_PROJECT", "compiled", "if_unwritable",
     ("PREFIX/julia_env", "HOME/.julia/environments/pyjuliapkg"), (),
     "dir", "juliapkg", "JuliaPy/pyjuliapkg@0aa8af104: src/juliapkg/state.py:60"),
    ("R_LIBS_USER", "compiled", "if_unwritable", ("HOME/R",), (),
     "path_list:%p-library/%v", "r-library", "https://stat.ethz.ch/R-manual/R-devel/library/base/html/libPaths.html"),

    # --- Build and packaging tools. Those that keep environments or programs are per image.
    ("PIP_CACHE_DIR", "data", "if_unwritable", ("CACHE/pip",), ("PIP_NO_CACHE_DIR",),
     "dir", "pip", "pip 26.2.1: pip/_internal/cli/base_command.py"),
    ("UV_CACHE_DIR", "data", "if_unwritable", ("CACHE/uv",), ("UV_NO_CACHE",),
     "dir", "uv", "astral-sh/uv@26a9dd4b2: crates/uv-cache/src/cli.rs, docs/concepts/cache.md"),
    ("POETRY_CACHE_DIR", "compiled", "if_unwritable", ("CACHE/pypoetry",), (),
     "dir", "poetry", "python-poetry/poetry@f46702336: src/poetry/locations.py"),
    ("PRE_COMMIT_HOME", "compiled", "if_unwritable", ("CACHE/pre-commit",), (),
     "dir", "pre-commit", "pre-commit 4.6.2: pre_commit/store.py"),
    ("VIRTUALENV_OVERRIDE_APP_DATA", "data", "if_unwritable", ("CACHE/virtualenv",), (),
     "dir", "virtualenv", "virtualenv 21.14.1: virtualenv/app_data/__init__.py"),
    # conda writes to the first writable entry, and PREFIX/pkgs is in the image.
    ("CONDA_PKGS_DIRS", "data", "if_unwritable", ("HOME/.conda/pkgs",), (),
     "comma_list", "conda", "conda@0f64223fb: conda/base/context.py pkgs_dirs"),
    ("BLACK_CACHE_DIR", "data", "if_unwritable", ("CACHE/black",), (),
     "dir", "black", "black 26.5.1: black/cache.py"),
    ("PYRIGHT_PYTHON_CACHE_DIR", "compiled", "if_unwritable", ("CACHE/pyright-python",), (),
     "dir", "pyright", "pyright 1.1.414: pyright/utils.py"),

    # --- Models and data sets.
    ("TORCH_HOME", "data", "if_unwritable", ("CACHE/torch",), (),
     "dir", "torch", "torch 2.14.1: torch/hub.py"),
    ("HF_HUB_CACHE", "data", "if_unwritable", ("CACHE/huggingface/hub",), ("HUGGINGFACE_HUB_CACHE", "HF_HOME"),
     "dir", "huggingface/hub", "huggingface_hub 1.33.0: huggingface_hub/constants.py"),
    ("HF_XET_CACHE", "data", "if_unwritable", ("CACHE/huggingface/xet",), ("HF_HOME",),
     "dir", "huggingface/xet", "huggingface_hub 1.33.0: huggingface_hub/constants.py:341"),
    ("HF_ASSETS_CACHE", "data", "if_unwritable", ("CACHE/huggingface/assets",), ("HUGGINGFACE_ASSETS_CACHE", "HF_HOME"),
     "dir", "huggingface/assets", "huggingface_hub 1.33.0: huggingface_hub/constants.py:184"),
    ("HF_DATASETS_CACHE", "data", "if_unwritable", ("CACHE/huggingface/datasets",), ("HF_HOME",),
     "dir", "huggingface/datasets", "datasets 5.0.1: datasets/config.py"),
    # Remote code that is imported: per image.
    ("HF_MODULES_CACHE", "compiled", "always", ("CACHE/huggingface/modules",), ("HF_HOME",),
     "dir", "huggingface/modules",
     "transformers 5.18.0: transformers/utils/hub.py:108; datasets 5.0.1: datasets/config.py:162"),
    ("LM_HARNESS_CACHE_PATH", "data", "always", ("PURELIB/lm_eval/caching/.cache",), (),
     "dir", "lm_eval", "lm_eval 0.4.13: lm_eval/caching/cache.py:14"),
    ("TFHUB_CACHE_DIR", "data", "if_unwritable", ("TMP/tfhub_modules",), (),
     "dir", "tfhub", "tensorflow/hub@26c94f677: tensorflow_hub/resolver.py"),
    ("TFDS_DATA_DIR", "data", "if_unwritable", ("HOME/tensorflow_datasets",), (),
     "dir", "tensorflow_datasets", "tensorflow_datasets 4.9.10: tensorflow_datasets/core/constants.py:36"),
    ("NLTK_DATA", "data", "if_unwritable", ("HOME/nltk_data",), (),
     "path_list", "nltk", "nltk 3.10.3: nltk/data.py:152, downloader.py:1374"),
    ("GENSIM_DATA_DIR", "data", "if_unwritable", ("HOME/gensim-data",), (),
     "dir", "gensim", "gensim@2d17ddf0f: gensim/downloader.py:77"),
    ("STANZA_RESOURCES_DIR", "data", "if_unwritable", ("CACHE/stanza/resources", "HOME/stanza_resources"), (),
     "dir", "stanza", "stanza@1f4bfdd2b: stanza/resources/common.py:42"),
    ("FLAIR_CACHE_ROOT", "data", "if_unwritable", ("HOME/.flair",), (),
     "dir", "flair", "flair@d4ea37779: flair/__init__.py:11"),
    ("SCIKIT_LEARN_DATA", "data", "if_unwritable", ("HOME/scikit_learn_data",), (),
     "dir", "scikit-learn", "scikit-learn 1.9.1: sklearn/datasets/_base.py:83"),
    ("SEABORN_DATA", "data", "if_unwritable", ("CACHE/seaborn", "HOME/seaborn-data"), (),
     "dir", "seaborn", "seaborn 0.13.2: seaborn/utils.py:517"),
    ("STATSMODELS_DATA", "data", "if_unwritable", ("HOME/statsmodels_data",), (),
     "dir", "statsmodels", "statsmodels 0.15.0: statsmodels/datasets/utils.py:351"),
    ("SKIMAGE_DATADIR", "data", "if_unwritable", ("CACHE/scikit-image",), (),
     "dir", "scikit-image", "scikit-image 0.26.0: skimage/data/_fetchers.py:129"),
    ("LIBROSA_DATA_DIR", "data", "if_unwritable", ("CACHE/librosa",), (),
     "dir", "librosa", "librosa 0.11.0: librosa/util/files.py:32"),
    ("KAGGLEHUB_CACHE", "data", "if_unwritable", ("HOME/.cache/kagglehub",), (),
     "dir", "kagglehub", "kagglehub 1.0.2: kagglehub/config.py:17"),
    ("EASYOCR_MODULE_PATH", "data", "if_unwritable", ("HOME/.EasyOCR",), ("MODULE_PATH",),
     "dir", "easyocr", "EasyOCR@c4f3cd722: easyocr/config.py:6"),
    ("DEEPFACE_HOME", "data", "if_unwritable", ("HOME/.deepface",), (),
     "base:.deepface", "deepface", "deepface@243209fd7: deepface/commons/folder_utils.py:34"),
    ("PADDLE_PDX_CACHE_HOME", "data", "if_unwritable", ("HOME/.paddlex",), (),
     "dir", "paddlex", "paddlex 3.7.2: paddlex/utils/cache.py:28"),
    # The value replaces ".../hub", not its parent.
    ("MODELSCOPE_CACHE", "data", "if_unwritable", ("HOME/.cache/modelscope/hub",), ("MS_CACHE_HOME",),
     "dir", "modelscope", "modelscope@2905da122: modelscope/utils/file_utils.py:45, hub/__init__.py"),
    ("DGL_DOWNLOAD_DIR", "data", "if_unwritable", ("HOME/.dgl",), (),
     "dir", "dgl", "dgl@3d16000b4: python/dgl/data/utils.py:313"),
    # With DGLBACKEND set, dgl does not write its config.json at import.
    ("DGLDEFAULTDIR", "config", "if_unwritable", ("HOME/.dgl",), ("DGLBACKEND",),
     "dir", "dgl-backend", "dgl@3d16000b4: python/dgl/backend/__init__.py:95"),
    ("PYG_HOME", "data", "if_unwritable", ("HOME/.cache/pyg",), (),
     "dir", "pyg", "torch_geometric 2.8.0.post1: torch_geometric/home.py"),
    ("DEEPCHEM_DATA_DIR", "data", "if_unwritable", ("TMP",), (),
     "mkdir", "deepchem", "deepchem@fbe3b911a: deepchem/utils/data_utils.py:75"),
    ("TOTALSEG_HOME_DIR", "data", "if_unwritable", ("HOME/.totalsegmentator",), (),
     "mkdir", "totalsegmentator", "TotalSegmentator@0e65a448d: totalsegmentator/config.py:16, README.md:198"),
    ("CELLPOSE_LOCAL_MODELS_PATH", "data", "if_unwritable", ("HOME/.cellpose/models",), (),
     "dir", "cellpose", "cellpose@849ca11f1: cellpose/models.py:23"),
    ("CELLTYPIST_FOLDER", "data", "if_unwritable", ("HOME/.celltypist",), (),
     "dir", "celltypist", "celltypist@fe357564a: celltypist/models.py:16"),
    ("PYENSEMBL_CACHE_DIR", "data", "if_unwritable", ("CACHE/pyensembl",), (),
     "base:pyensembl", "pyensembl", "pyensembl@7870b3538: pyensembl/download_cache.py:25"),
    ("ASTROPY_CACHE_DIR", "data", "if_unwritable", ("CACHE/astropy", "HOME/.astropy/cache"), (),
     "mkdir", "astropy", "astropy 8.0.1: astropy/config/paths.py:118"),
    ("SUNPY_DOWNLOADDIR", "data", "if_unwritable", ("HOME/sunpy/data",), (),
     "dir", "sunpy/data", "sunpy@d2ae0740e: sunpy/util/config.py:89"),
    ("SUNPY_SAMPLEDIR", "data", "if_unwritable", ("DATA/sunpy", "HOME/sunpy/data/sample_data"), (),
     "dir", "sunpy/sample", "sunpy@d2ae0740e: sunpy/data/_sample.py:128, sunpy/util/config.py:47"),
    ("MNE_DATA", "data", "if_unwritable", ("HOME/mne_data",), (),
     "mkdir", "mne", "mne@8aa8dec45: mne/datasets/utils.py:113"),
    ("NILEARN_DATA", "data", "if_unwritable", ("HOME/nilearn_data",), (),
     "path_list", "nilearn", "nilearn@59fffa24b: nilearn/datasets/utils.py:54"),
    ("TEMPLATEFLOW_HOME", "data", "if_unwritable", ("CACHE/templateflow",), (),
     "dir", "templateflow", "templateflow@c7e51a4b9: templateflow/conf/env.py"),
    ("DIPY_HOME", "data", "if_unwritable", ("HOME/.dipy",), (),
     "dir", "dipy", "dipy@2ecd36558: dipy/data/fetcher.py:31"),
    ("PYVISTA_USERDATA_PATH", "data", "if_unwritable", ("CACHE/pyvista_3",), (),
     "mkdir", "pyvista", "pyvista 0.49.1: pyvista/examples/downloads.py:90"),
    ("ROBOT_DESCRIPTIONS_CACHE", "data", "if_unwritable", ("HOME/.cache/robot_descriptions",), (),
     "dir", "robot_descriptions", "robot_descriptions 2.0.0: robot_descriptions/_cache.py"),
    ("ARVIZ_DATA", "data", "if_unwritable", ("HOME/arviz_data",), (),
     "dir", "arviz", "arviz 0.23.4: arviz/rcparams.py:457"),
    ("WANDB_CACHE_DIR", "data", "if_unwritable", ("CACHE/wandb",), (),
     "dir", "wandb/cache", "wandb 0.30.0: wandb/env.py:436"),
    ("WANDB_DATA_DIR", "data", "if_unwritable", ("DATA/wandb",), (),
     "dir", "wandb/data", "wandb 0.30.0: wandb/env.py:412"),
    # The built-in sdk.conf names this default; $TMPDIR/clearml_cache is used where a user's clearml.conf unsets it.
    ("CLEARML_CACHE_DIR", "data", "if_unwritable", ("HOME/.clearml/cache", "TMP/clearml_cache"), ("TRAINS_CACHE_DIR",),
     "dir", "clearml", "clearml@0cc42633f: clearml/config/defs.py:21; clearml/config/default/sdk.conf:7"),

    # --- Settings, histories, fonts.
    # In a venv and in conda's environments PREFIX/nni, which no image lets be written; else HOME/.config/nni.
    ("NNI_CONFIG_DIR", "config", "if_unwritable", ("PREFIX/nni", "HOME/.config/nni"), (),
     "dir", "nni", "nni 2.10: nni/runtime/config.py get_config_directory"),
    # The font list holds absolute paths of the image. The user's matplotlibrc and styles: CARRIED, LINKED.
    ("MPLCONFIGDIR", "config", "always", ("CACHE/matplotlib",), (),
     "mkdir", "matplotlib", "matplotlib 3.11.2: matplotlib/__init__.py:509, font_manager.py:1159"),
    ("YOLO_CONFIG_DIR", "config", "if_unwritable", ("CONFIG/Ultralytics",), (),
     "base:Ultralytics", "yolo", "ultralytics 8.4.190: ultralytics/utils/__init__.py:970"),
    ("IPYTHONDIR", "config", "if_unwritable", ("HOME/.ipython",), (),
     "mkdir", "ipython", "ipython 9.17.1: IPython/paths.py, core/history.py"),
    ("JUPYTERLAB_SETTINGS_DIR", "config", "if_unwritable",
     ("HOME/.jupyter/lab/user-settings",), ("JUPYTER_CONFIG_DIR",),
     "dir", "jupyterlab/settings", "jupyterlab 4.6.4: jupyterlab/commands.py:141"),
    ("JUPYTERLAB_WORKSPACES_DIR", "config", "if_unwritable", ("HOME/.jupyter/lab/workspaces",), ("JUPYTER_CONFIG_DIR",),
     "dir", "jupyterlab/workspaces", "jupyterlab 4.6.4: jupyterlab/commands.py:148"),
    # os.mkdir, not makedirs.
    ("KIVY_HOME", "config", "if_unwritable", ("HOME/.kivy",), ("KIVY_DESKTOP_PATH_ID",),
     "mkdir", "kivy", "kivy@26f870bbf: kivy/__init__.py:346"),

    # --- Sockets and temporary files.
    ("JUPYTER_RUNTIME_DIR", "runtime", "if_unwritable", ("DATA/jupyter/runtime",), ("JUPYTER_DATA_DIR",),
     "dir", "jupyter", "jupyter_core 5.9.1: jupyter_core/paths.py:197"),
    # The default has one name for all users of a node.
    ("GRADIO_TEMP_DIR", "runtime", "always", ("TMP/gradio",), (),
     "dir", "gradio", "gradio@375335e60: gradio/utils.py:1567"),
    # ANSIBLE_HOME itself would hide installed collections and the Galaxy token.
    ("ANSIBLE_LOCAL_TEMP", "runtime", "if_unwritable", ("HOME/.ansible/tmp",), ("ANSIBLE_HOME",),
     "dir", "ansible/local", "ansible-core 2.19.14: ansible/config/base.yml DEFAULT_LOCAL_TMP (run)"),
    ("ANSIBLE_REMOTE_TEMP", "runtime", "if_unwritable", ("HOME/.ansible/tmp",), ("ANSIBLE_REMOTE_TMP",),
     "dir", "ansible/remote", "ansible-core 2.19.14: ansible/plugins/doc_fragments/shell_common.py (run)"),
    ("ANSIBLE_SSH_CONTROL_PATH_DIR", "runtime", "if_unwritable", ("HOME/.ansible/cp",), (),
     "dir", "ansible/cp", "ansible-core 2.19.14: ansible/plugins/connection/ssh.py:319,945"),
)))
"""What is set without being asked for."""

OPT_IN: "tuple[Row, ...]" = tuple(map(Row._make, (
    ("PYTHONPYCACHEPREFIX", "compiled", "opt_in", (), (),
     "dir", "pycache", "https://docs.python.org/3/library/sys.html#sys.pycache_prefix"),
    ("MYPY_CACHE_DIR", "data", "opt_in", ("CWD/.mypy_cache",), (),
     "dir", "mypy", "mypy 2.4.0: mypy/main.py"),
    ("HYPOTHESIS_STORAGE_DIRECTORY", "data", "opt_in", ("CWD/.hypothesis",), (),
     "dir", "hypothesis", "hypothesis 6.168.3: hypothesis/configuration.py"),
    ("npm_config_cache", "data", "opt_in", ("HOME/.npm",), ("NPM_CONFIG_CACHE",),
     "dir", "npm", "https://docs.npmjs.com/cli/using-npm/config#cache"),
    ("GOCACHE", "compiled", "opt_in", ("CACHE/go-build",), (),
     "dir", "go/build", "https://pkg.go.dev/cmd/go#hdr-Build_and_test_caching (belief)"),
    ("GOMODCACHE", "data", "opt_in", ("HOME/go/pkg/mod",), ("GOPATH",),
     "dir", "go/mod", "https://pkg.go.dev/cmd/go#hdr-Build_and_test_caching (belief)"),
    ("GOPATH", "compiled", "opt_in", ("HOME/go",), (),
     "dir", "go/path", "https://pkg.go.dev/cmd/go#hdr-Build_and_test_caching (belief)"),
    ("TORCH_COMPILE_DEBUG_DIR", "data", "opt_in", ("CWD/torch_compile_debug",), (),
     "dir", "torch-compile-debug", "torch 2.14.1: torch/_dynamo/config.py:646"),
    # The driver's maximum, 4 GiB.
    ("CUDA_CACHE_MAXSIZE", "config", "opt_in", (), (),
     "value:4294967296", "",
     "https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html (belief)"),
    ("CUPY_CACHE_IN_MEMORY", "config", "opt_in", (), (),
     "value:1", "", "cupy@6b6d9563c: cupy/cuda/compiler.py:637"),
    # Turns on a feature that is off by default.
    ("JAX_COMPILATION_CACHE_DIR", "compiled", "opt_in", (), (),
     "dir", "jax", "jax 0.10.2: jax/_src/config.py; https://docs.jax.dev/en/latest/persistent_compilation_cache.html"),
    ("VLLM_RPC_BASE_PATH", "runtime", "opt_in", ("TMP",), (),
     "mkdir", "vllm-rpc", "vllm@001f69f8: vllm/envs.py"),
    ("SGLANG_DG_CACHE_DIR", "compiled", "opt_in", ("HOME/.cache/sglang/deep_gemm",), ("SGLANG_CACHE_DIR",),
     "dir", "sglang-deep_gemm", "sglang 0.5.23: sglang/srt/layers/deep_gemm_wrapper/compile_utils.py:49"),
    ("DG_JIT_CACHE_DIR", "compiled", "opt_in", ("HOME/.deep_gemm",), ("SGLANG_DG_CACHE_DIR",),
     "dir", "deep_gemm", "sglang 0.5.23: sglang/srt/layers/deep_gemm_wrapper/compile_utils.py:51"),
    ("SGLANG_JIT_CACHE_DIR", "compiled", "opt_in", ("HOME/.cache/sglang/jit",), (),
     "dir", "sglang-jit", "sglang 0.5.23: sglang/kernels/jit/utils/compile/cache.py:318"),
    ("OPTIX_CACHE_PATH", "compiled", "opt_in", ("/var/tmp/OptixCache_{user}",), (),  # noqa: S108
     "dir", "optix", "NVIDIA OptiX programming guide (belief)"),
    # Set, it turns a silent failure to cache into an exception.
    ("TIKTOKEN_CACHE_DIR", "data", "opt_in", ("TMP/data-gym-cache",), ("DATA_GYM_CACHE_DIR",),
     "dir", "tiktoken", "tiktoken 0.14.0: tiktoken/load.py"),
    ("KERAS_HOME", "data", "opt_in", ("HOME/.keras", "/tmp/.keras"), (),  # noqa: S108
     "dir", "keras", "keras 3.15.1: keras/src/backend/config.py:275"),
    ("MNE_DONTWRITE_HOME", "config", "opt_in", (), (),
     "value:true", "", "mne@8aa8dec45: mne/utils/config.py:518"),
    ("PROJ_USER_WRITABLE_DIRECTORY", "data", "opt_in", ("DATA/proj",), (),
     "dir", "proj", "https://proj.org/en/stable/usage/environmentvars.html (belief)"),
    ("IMAGEIO_USERDIR", "data", "opt_in", ("HOME/.imageio", "/var/tmp/.imageio"), (),  # noqa: S108
     "base:.imageio", "imageio", "imageio 2.38.0: imageio/core/util.py:420"),
    ("CLOUDPATHLIB_LOCAL_CACHE_DIR", "data", "opt_in", ("TMP",), (),
     "dir", "cloudpathlib", "cloudpathlib 0.25.0: cloudpathlib/client.py:51"),
    ("PYSCF_TMPDIR", "runtime", "opt_in", ("TMP",), (),
     "mkdir", "pyscf", "pyscf 2.14.0: pyscf/__config__.py:13"),
    ("MLFLOW_ENV_ROOT", "compiled", "opt_in", ("HOME/.mlflow/envs",), (),
     "dir", "mlflow-envs", "mlflow_skinny 3.17.2: mlflow/environment_variables.py:575"),
    ("MLFLOW_DFS_TMP", "runtime", "opt_in", ("/tmp/mlflow",), (),  # noqa: S108
     "dir", "mlflow", "mlflow_skinny 3.17.2: mlflow/environment_variables.py:229"),
    # Sockets below it: at most 36 bytes.
    ("RAY_TMPDIR", "runtime", "opt_in", ("TMP/ray",), (),
     "base:ray", "r", "ray 2.58.0: ray/_common/utils.py:327, ray/_private/node.py:758"),
    ("DASK_TEMPORARY_DIRECTORY", "runtime", "opt_in", ("TMP/dask-scratch-space",), (),
     "base:dask-scratch-space", "dask", "dask/distributed@40fcd99a8: distributed/core.py:235"),
    ("SPARK_LOCAL_DIRS", "runtime", "opt_in", ("/tmp",), (),  # noqa: S108
     "mkdir", "spark", "https://spark.apache.org/docs/latest/configuration.html (spark.local.dir)"),
    ("GRADIO_EXAMPLES_CACHE", "data", "opt_in", ("CWD/.gradio/cached_examples",), (),
     "dir", "gradio-examples", "gradio@375335e60: gradio/utils.py:1512"),
    ("PREFECT_HOME", "config", "opt_in", ("HOME/.prefect",), (),
     "dir", "prefect", "PrefectHQ/prefect@ce79dd3d6: src/prefect/settings/models/root.py:103"),
)))
"""What changes a behaviour, and so is set only when ``SIF_WRITABLE_OPT_IN`` names it."""
# fmt: on
