"""Tables beside the rows: which files of the user's and of the image must still be found where a location moves.

Like the rows they are literals alone, and loaded only where no earlier start has left its plan.
"""

# fmt: off
LEVELS: "tuple[tuple[str, int], ...]" = (
    ("ASTROPY_CACHE_DIR", 3),  # download/url/HASH
    ("CELLTYPIST_FOLDER", 3),  # data/models/FILE
    ("CLEARML_CACHE_DIR", 2),
    ("DEEPFACE_HOME", 2),  # weights/FILE
    ("EASYOCR_MODULE_PATH", 2),  # model/FILE
    ("FLAIR_CACHE_ROOT", 2),  # models/NAME
    ("HF_DATASETS_CACHE", 2),  # NAME/CONFIGURATION
    ("KAGGLEHUB_CACHE", 3),  # models/OWNER/NAME
    ("MODELSCOPE_CACHE", 3),  # models/OWNER/NAME
    ("PADDLE_PDX_CACHE_HOME", 2),  # official_models/NAME
    ("PYENSEMBL_CACHE_DIR", 2),  # GENOME/RELEASE
    ("SKIMAGE_DATADIR", 3),  # VERSION/data/FILE
    ("STANZA_RESOURCES_DIR", 3),  # LANGUAGE/PROCESSOR/FILE
    ("TEMPLATEFLOW_HOME", 4),  # its index does not follow links to directories
    ("TFDS_DATA_DIR", 2),  # NAME/VERSION
    ("TORCH_HOME", 3),  # hub/checkpoints/FILE
    ("TOTALSEG_HOME_DIR", 3),  # nnunet/results/NAME
    ("VIRTUALENV_OVERRIDE_APP_DATA", 0),
    ("BLACK_CACHE_DIR", 0),
    ("HF_XET_CACHE", 0),
    ("PIP_CACHE_DIR", 0),
    ("WANDB_CACHE_DIR", 0),
    ("WANDB_DATA_DIR", 0),
    # These name the old place in their value.
    ("CONDA_PKGS_DIRS", 0),
    ("NILEARN_DATA", 0),
    ("NLTK_DATA", 0),
)
"""(variable, levels): how deep the entries of the default are offered in the folder by links; by default 1.

The entries of the last level are linked, those above are directories of the folder's own, so that new files go there.
With 1, what is in a directory that exists in the default stays together: a new revision of a model of
``huggingface_hub`` goes beside its other ones, whose files it shares. 0: nothing but copies of what can be had again.
"""

STAYING: "tuple[str, ...]" = (
    "POETRY_CACHE_DIR",
    "PRE_COMMIT_HOME",
    "PYRIGHT_PYTHON_CACHE_DIR",
    "UV_CACHE_DIR",
)
"""Rows that stay where they are, also where the user gave a place, as long as their default works and is there.

What they hold refers to itself by its path, or one entry to another: neither links nor a list keep it whole.
"""

HIDING: "tuple[str, ...]" = ("NLTK_DATA",)
"""Rows whose variable, being set, hides files that packages bring. Set only where nothing else serves.

A working default stays, also where the user gave a place; and below a HOME that is repaired, the default works.
"""

LASTING: "tuple[str, ...]" = ("DG_JIT_CACHE_DIR", "KERAS_HOME", "MLFLOW_ENV_ROOT")
"""Rows that HOME serves elsewhere, repaired or not; set where HOME is on the small tmpfs of a container session."""

CARRIED: "tuple[tuple[str, str, str], ...]" = (("MPLCONFIGDIR", "MATPLOTLIBRC", "CONFIG/matplotlib/matplotlibrc"),)
"""(redirected variable, second variable, template): the second is set to that file, if it exists and is not set."""

LINKED: "tuple[tuple[str, str, str], ...]" = (
    ("XDG_CACHE_HOME", "huggingface/token", "CACHE/huggingface/token"),
    ("XDG_CACHE_HOME", "huggingface/stored_tokens", "CACHE/huggingface/stored_tokens"),
    (
        "XDG_CACHE_HOME",
        "huggingface/accelerate/default_config.yaml",
        "CACHE/huggingface/accelerate/default_config.yaml",
    ),
    (
        "XDG_CACHE_HOME",
        "huggingface/accelerate/default_config.json",
        "CACHE/huggingface/accelerate/default_config.json",
    ),
    ("XDG_CACHE_HOME", "ms-playwright", "CACHE/ms-playwright"),
    ("MPLCONFIGDIR", "stylelib", "CONFIG/matplotlib/stylelib"),
    ("IPYTHONDIR", "profile_default/ipython_config.py", "HOME/.ipython/profile_default/ipython_config.py"),
    (
        "IPYTHONDIR",
        "profile_default/ipython_kernel_config.py",
        "HOME/.ipython/profile_default/ipython_kernel_config.py",
    ),
    ("IPYTHONDIR", "profile_default/startup", "HOME/.ipython/profile_default/startup"),
    ("JUPYTERLAB_SETTINGS_DIR", "@jupyterlab", "HOME/.jupyter/lab/user-settings/@jupyterlab"),
    ("YOLO_CONFIG_DIR", "Ultralytics/settings.json", "CONFIG/Ultralytics/settings.json"),
    ("KIVY_HOME", "config.ini", "HOME/.kivy/config.ini"),
    ("DGLDEFAULTDIR", "config.json", "HOME/.dgl/config.json"),
    ("TOTALSEG_HOME_DIR", "config.json", "HOME/.totalsegmentator/config.json"),
    ("TRITON_HOME", ".triton/override", "HOME/.triton/override"),
    ("CCACHE_DIR", "ccache.conf", "HOME/.ccache/ccache.conf"),
    ("CCACHE_DIR", "ccache.conf", "CONFIG/ccache/ccache.conf"),
    ("KERAS_HOME", "keras.json", "HOME/.keras/keras.json"),
    ("PREFECT_HOME", "profiles.toml", "HOME/.prefect/profiles.toml"),
)
"""(redirected variable, name in its folder, template of the old path): credentials and settings that are still found.

A link is made after seeding, and whenever one has come: where the old path exists and the folder has no such name; the
first that exists wins. So what a package rewrites (``config.json``, ``settings.json``) is a copy where its old place is
read-only, else a link.
"""

USED_BY: "tuple[tuple[str, str, bool], ...]" = (
    ("XDG_STATE_HOME", "", True),
    ("TRITON_HOME", "triton", True),
    ("PYTORCH_KERNEL_CACHE_PATH", "torch", False),
    ("PYCUDA_CACHE_DIR", "pycuda", False),
    ("POCL_CACHE_DIR", "pyopencl pocl", True),
    ("CUTE_DSL_CACHE_DIR", "cutlass", False),
    ("FLASHINFER_WORKSPACE_BASE", "flashinfer", True),
    ("OPENMM_CACHE_DIR", "openmm simtk", False),
    ("MIOPEN_USER_DB_PATH", "rocm", True),
    ("MIOPEN_CUSTOM_CACHE_DIR", "rocm", True),
    ("JULIA_DEPOT_PATH", "julia", True),
    ("R_LIBS_USER", "rpy2 bin/R", True),
    ("NLTK_DATA", "nltk", False),
    ("DEEPFACE_HOME", "deepface", True),
    ("DEEPCHEM_DATA_DIR", "deepchem", False),
    ("TOTALSEG_HOME_DIR", "totalseg", True),
    ("PYENSEMBL_CACHE_DIR", "pyensembl", True),
    ("ASTROPY_CACHE_DIR", "astropy", False),
    ("MNE_DATA", "mne", False),
    ("NILEARN_DATA", "nilearn", True),
    ("PYVISTA_USERDATA_PATH", "pyvista", False),
    ("MPLCONFIGDIR", "matplotlib", True),
    ("YOLO_CONFIG_DIR", "ultralytics yolo", False),
    ("IPYTHONDIR", "ipython", True),
    ("KIVY_HOME", "kivy", True),
)
"""(variable, words, whether it is set in any case): the folder is made only in an image that has one of the words.

A word is looked for in the names of what is installed: ``mne`` is in ``mne``, ``mne-1.12.dist-info`` and
``__editable___mne_1_12_finder.py``; ``bin/R`` is a program. Where none is found, a variable whose package makes the
folder itself is set all the same, for a program of another environment; one whose package fails without the folder is
left alone.
"""

SHARED: "tuple[tuple[str, str], ...]" = (
    (".keras/datasets", "keras/datasets"),
    (".keras/models", "keras/models"),
    (".insightface/models", "insightface/models"),
    ("nltk_data", "nltk"),
)
"""(directory in HOME, folder for downloads): what packages that no variable moves, or none should, download into HOME.

In a private home, which belongs to one image, each is a link, so that another image finds them, too.
"""

UNSEEDED: "tuple[str, ...]" = (
    "CLOUDPATHLIB_LOCAL_CACHE_DIR",
    "DEEPCHEM_DATA_DIR",
    "DGLDEFAULTDIR",
    "NILEARN_DATA",
    "NLTK_DATA",
    "OPENMM_CACHE_DIR",
    "R_LIBS_USER",
    "TORCH_EXTENSIONS_DIR",
)
"""Rows whose default is not a seed: the value names it, it is shared, or its layout is another when it is set.

A default ``torch_extensions`` holds ``py311_cu121/NAME``; with the variable set, torch looks for ``NAME``.
"""

OF_GROUP: "tuple[str, ...]" = (
    "ARVIZ_DATA",
    "ASTROPY_CACHE_DIR",
    "HF_ASSETS_CACHE",
    "HF_HUB_CACHE",
    "LIBROSA_DATA_DIR",
    "MNE_DATA",
    "PYVISTA_USERDATA_PATH",
    "SEABORN_DATA",
    "SKIMAGE_DATADIR",
    "SUNPY_DOWNLOADDIR",
    "SUNPY_SAMPLEDIR",
    "TEMPLATEFLOW_HOME",
    "TFDS_DATA_DIR",
    "VLLM_ASSETS_CACHE",
)
"""Downloads that a group shares where the user wants it: their packages read what is there, and run none of it.

Not among them is what executes what it finds: pickles (torch's checkpoints, scikit-learn, stanza, flair), code beside
data (TORCH_HOME, gensim, modelscope, kagglehub), programs (TF Hub), packages (pip, conda, uv); nor what locks its files
for one user (datasets). Of the Hugging Face hub only a program that asks for it (``trust_remote_code``) runs modules.
"""

DECIDED_IN: "tuple[tuple[str, str, str], ...]" = (
    ("MNE_DATA", "HOME/.mne/mne-python.json", "MNE_DATA"),
    ("PYTENSOR_FLAGS", "HOME/.pytensorrc", "compiledir"),
    ("AESARA_FLAGS", "HOME/.aesararc", "compiledir"),
    ("THEANO_FLAGS", "HOME/.theanorc", "compiledir"),
    ("ANSIBLE_LOCAL_TEMP", "HOME/.ansible.cfg", "local_tmp"),
    ("ANSIBLE_REMOTE_TEMP", "HOME/.ansible.cfg", "remote_tmp"),
    ("ANSIBLE_SSH_CONTROL_PATH_DIR", "HOME/.ansible.cfg", "control_path_dir"),
    ("CCACHE_DIR", "CONFIG/ccache/ccache.conf", "cache_dir"),
    ("CLEARML_CACHE_DIR", "HOME/clearml.conf", "default_base_dir"),
    ("PIP_CACHE_DIR", "CONFIG/pip/pip.conf", "cache-dir"),
    ("PIP_CACHE_DIR", "HOME/.pip/pip.conf", "cache-dir"),
    ("POETRY_CACHE_DIR", "CONFIG/pypoetry/config.toml", "cache-dir"),
    ("SUNPY_DOWNLOADDIR", "CONFIG/sunpy/sunpyrc", "download_dir"),
    ("SUNPY_SAMPLEDIR", "CONFIG/sunpy/sunpyrc", "sample_dir"),
    ("UV_CACHE_DIR", "CONFIG/uv/uv.toml", "cache-dir"),
)
"""(variable, template, text): a file that holds this text has decided, as if the user had set the variable.

Of these packages the variable is stronger than the file.
"""
# fmt: on
