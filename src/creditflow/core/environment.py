"""The environment that stages compute in: the same whatever a shell, a notebook or a git hook exports.

The workflow cleans its own environment before its first job, and each stage's script cleans its own, so that it runs
alike by hand, under Snakemake, in a fork and in a container. Whoever imports creditflow elsewhere keeps the environment
as it is.
"""

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

#: Variables that change what Python, the shell or the tools of a job do.
_OF_PYTHON_AND_SHELL = frozenset(
    {"PYTHONSTARTUP", "PYTHONWARNINGS", "PYTHONOPTIMIZE", "PYTHONINSPECT", "PYTHONDEVMODE", "PYTHONDONTWRITEBYTECODE"}
    | {"PYTHONIOENCODING", "PYTHONSAFEPATH", "PYTHONVERBOSE", "PYTHONDEBUG", "PYTHONPROFILEIMPORTTIME"}
    | {"PYTHONCASEOK", "PYTHONWARNDEFAULTENCODING", "PYTHONASYNCIODEBUG"}
    | {"BASH_ENV", "ENV", "CDPATH", "GREP_OPTIONS", "POSIXLY_CORRECT"}
)

#: Variables that change what the libraries compute or write: instruction sets, precision, the number of threads behind
#: a stage's back, logs, dates. Some end a library's import if their value makes no sense. OPENBLAS_CORETYPE stays: it
#: is set where a processor is too new for OpenBLAS, which would crash.
_OF_LIBRARIES = frozenset(
    {"MATPLOTLIBRC", "SOURCE_DATE_EPOCH", "OPENBLAS_VERBOSE"}
    | {"TORCH_LOGS", "TORCH_LOGS_OUT", "TORCH_LOGS_FORMAT", "TORCH_TRACE", "TORCH_COMPILE_DEBUG", "PYTORCH_JIT"}
    | {"TORCH_CPP_LOG_LEVEL", "TORCH_SHOW_CPP_STACKTRACES", "TORCH_SHOW_DISPATCH_TRACE"}
    | {"NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TORCH_BLAS_PREFER_CUBLASLT"}
    | {"OMP_DYNAMIC", "OMP_THREAD_LIMIT", "OMP_SCHEDULE", "OMP_NESTED", "OMP_MAX_ACTIVE_LEVELS"}
)

#: Beginnings of names of such variables.
_PREFIXES_OF_LIBRARIES = ("MPL", "MKL_", "KMP_", "ONEDNN_", "DNNL_", "NPY_", "TORCHDYNAMO_", "TORCHINDUCTOR_", "TQDM_")
_PREFIXES_OF_TOOLS = ("GIT_", "PIP_")

#: What stays all the same: the caches' place, which the workflow sets; how many threads a library may start, as it
#: changes no number; git's own configuration, which lets it read a folder of somebody else in a container; and what
#: scikit-learn sets for the processes that it starts.
_KEPT = ("MPLCONFIGDIR", "GIT_CONFIG", "GIT_PYTHON_", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK")
_KEPT_ENDINGS = ("_NUM_THREADS",)

#: What is set. foolbox imports GitPython, which runs git and would end the stage where git is missing, or where its
#: configuration is broken; so it gets no git, and says nothing.
_SET = {"PYTHONUTF8": "1", "GIT_PYTHON_REFRESH": "quiet", "GIT_PYTHON_GIT_EXECUTABLE": "none"}

#: Libraries that have read their variables once they are loaded.
_LIBRARIES = ("torch", "numpy", "matplotlib")


def clean(environment: MutableMapping[str, str]) -> set[str]:
    """Removes from an environment whatever would let a stage run otherwise, and has Python use UTF-8 (see `_SET`).

    Returns the names of the variables that it changed.
    """
    changed = {name for name in environment if _is_of_tools(name) or _is_of_libraries(name)}
    for name in changed:
        del environment[name]
    changed |= {name for name, value in _SET.items() if environment.get(name) != value}
    environment.update(_SET)
    return changed


def without_git(environment: MutableMapping[str, str]) -> dict[str, str]:
    """Returns an environment without what a git hook exports, so that git looks at the folder that it is given."""
    return {name: value for name, value in environment.items() if not name.startswith("GIT_") or _is_kept(name)}


def clean_stage(source: Path) -> None:
    """Cleans the environment of this process if it runs a script of the folder `source`; else does nothing.

    Where Python or a library has already read a variable that was removed, the script starts once more. Folders of
    PYTHONPATH come last, so that nothing there takes the place of a library of this environment.
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script is None or Path(script).resolve().parent != source:
        return
    changed = clean(os.environ)
    put_last(os.environ.get("PYTHONPATH", ""))
    if changed and (_python_differs() or _libraries_differ(changed)):
        os.execv(sys.executable, [sys.executable, *sys.argv])


def put_last(folders: str) -> None:
    """Moves folders, given as PYTHONPATH gives them, to the end of where Python looks for modules."""
    moved = {str(Path(folder).absolute()) for folder in folders.split(os.pathsep) if folder}
    sys.path[1:] = sorted(sys.path[1:], key=moved.__contains__)


def _is_of_tools(name: str) -> bool:
    return name in _OF_PYTHON_AND_SHELL or (name.startswith(_PREFIXES_OF_TOOLS) and not _is_kept(name))


def _is_of_libraries(name: str) -> bool:
    return name in _OF_LIBRARIES or (name.startswith(_PREFIXES_OF_LIBRARIES) and not _is_kept(name))


def _is_kept(name: str) -> bool:
    return name.startswith(_KEPT) or name.endswith(_KEPT_ENDINGS)


def _python_differs() -> bool:
    """Says whether this Python was started by variables to warn, check or encode otherwise than it does of itself."""
    flags = sys.flags
    encodings = (sys.getfilesystemencoding(), getattr(sys.stdout, "encoding", None) or "utf-8")
    is_utf8 = all(encoding.lower().replace("_", "-") in ("utf-8", "utf8") for encoding in encodings)
    return bool(sys.warnoptions or flags.optimize or flags.inspect or flags.dev_mode) or not is_utf8


def _libraries_differ(changed: set[str]) -> bool:
    return any(map(_is_of_libraries, changed)) and any(name in sys.modules for name in _LIBRARIES)
