"""The modules whose import is worth a look at the GPU first: constants only, since the import hook loads this."""

HEAVY_MODULES = (
    "torch",
    "tensorflow",
    "jax",
    "jaxlib",
    "cupy",
    "numba.cuda",
    "pycuda",
    "cudf",
    "cugraph",
    "cuml",
    "cuspatial",
    "rmm",
    "paddle",
    "mxnet",
    "triton",
    "onnxruntime",
    "vllm",
    "tensorrt",
    "warp",
    "pyopencl",
)
"""Names as in ``import NAME``. An image adds its own."""

ONLY_WITH = {"onnxruntime": "onnxruntime_gpu-"}
"""Heavy only where a distribution is installed whose ``.dist-info`` folder starts so; the CPU build shares the name."""
