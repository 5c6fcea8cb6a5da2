"""What is checked once, just before the first heavy import: the storage that the job demands, and the GPU.

``find_spec("torch")`` is a question, which transformers and others ask; the import comes when the module is executed.
So a heavy module is found with a loader that checks first (:class:`CheckedLoader`).
"""

from __future__ import annotations

import _frozen_importlib as _bootstrap
import _frozen_importlib_external as _external
import os
import sys

from sif_writable.stderr import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    from sif_writable.importhook import Finder

_NAMESPACE_LOADER: Any = getattr(_external, "NamespaceLoader", None) or _external._NamespaceLoader  # noqa: SLF001


def with_check(spec: ModuleSpec, finder: Finder) -> ModuleSpec:
    """Return the spec of a heavy module such that the module's execution begins with the check."""
    loader: Any = spec.loader
    is_namespace = loader is None and spec.submodule_search_locations is not None
    if type(loader) is not CheckedLoader and (loader or is_namespace):
        spec.loader = CheckedLoader(spec, finder)  # type: ignore[assignment]
    return spec


class CheckedLoader:
    """Stands for the loader of a heavy module until the module is executed.

    It checks, puts the ordinary loader in its place, and has it do the work. Whatever else it is asked for is the
    ordinary loader's answer, also what that lacks.
    """

    def __init__(self, spec: ModuleSpec, finder: Finder) -> None:
        """:param spec: of the module; its loader may be None, which is a namespace."""
        self._spec = spec
        self._finder = finder
        self._ordinary = spec.loader
        self._loader: Any = spec.loader
        if spec.loader is None:
            self._loader = _NAMESPACE_LOADER.__new__(_NAMESPACE_LOADER)
            self._loader._path = spec.submodule_search_locations  # noqa: SLF001 - as the import system makes one

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:
        """Pass for what it stands for."""
        return type(self._loader)

    def __getattr__(self, name: str) -> Any:
        """Return what the ordinary loader has; what executes the module checks first."""
        if name == "_loader":  # a copy of this is being made
            raise AttributeError(name)
        found = getattr(self._loader, name)
        if name == "exec_module":
            return self._exec_module
        if name == "load_module":
            return self._load_module
        if name == "create_module" and isinstance(self._loader, _external.ExtensionFileLoader):
            return self._create_module  # it loads the library, and runs its code
        if name == "get_code" and sys._getframe(1).f_globals.get("__name__") == "runpy":  # noqa: SLF001
            self._begin(None)  # `python -m`, which executes the code by itself
        return found

    def _begin(self, module: ModuleType | None) -> None:
        """Check, and put the ordinary loader in its place."""
        name = self._spec.name
        if name in self._finder.awaited:
            before_import(name)
            self._finder.has_checked()
        for spec in (self._spec, getattr(module, "__spec__", None)):
            if spec is not None and spec.loader is self:
                spec.loader = self._ordinary
        if module is not None and getattr(module, "__loader__", None) is self:
            module.__loader__ = self._loader

    def _exec_module(self, module: ModuleType) -> None:  # pragma: no cover - it has another name
        self._begin(module)
        if self._ordinary is None:
            _bootstrap._init_module_attrs(self._spec, module, override=True)  # noqa: SLF001
        self._loader.exec_module(module)

    def _create_module(self, spec: ModuleSpec) -> Any:  # pragma: no cover - it has another name
        self._begin(None)
        spec.loader = self  # type: ignore[assignment] # for exec_module, which knows the module
        return self._loader.create_module(spec)

    def _load_module(self, *name: str) -> ModuleType:  # pragma: no cover - it has another name
        self._begin(None)
        module: ModuleType = self._loader.load_module(*name)
        return module

    # A traceback shows none of these frames; see copies/execution.py.
    for _function in (_exec_module, _create_module, _load_module):
        _function.__code__ = _function.__code__.replace(
            co_filename="<frozen importlib._bootstrap>", co_name="_call_with_frames_removed"
        )
    del _function


def before_import(name: str) -> None:
    """Check what a heavy module needs before it is imported.

    :param name: the module about to be executed, for the message.
    :raises StorageUnavailableError: ``SIF_WRITABLE_STRICT=1`` and the place that the user named cannot be used.
    :raises GpuUnavailableError: ``SIF_WRITABLE_GPU=require`` and no GPU meets what is demanded.
    """
    from sif_writable.errors import UnmetDemandError

    try:
        _check(name)
    except UnmetDemandError:
        raise
    except Exception as problem:  # noqa: BLE001 - whatever goes wrong with us, the module is imported
        note(problem)


def _check(name: str) -> None:
    from sif_writable.gpu import check
    from sif_writable.session import REFUSED, STRICT

    if os.environ.get(STRICT) == "1" and os.environ.get(REFUSED):
        from sif_writable.errors import Problem, StorageUnavailableException, StorageUnavailableExit, somebody_waits

        text, _, remedy = os.environ[REFUSED].rpartition("\n")
        problem = Problem("storage-refused", text, remedy)
        kind = StorageUnavailableException if somebody_waits() else StorageUnavailableExit
        if kind is StorageUnavailableExit:
            check.warn(name, problem)
        raise kind(problem, name)
    check.enforce(name, os.environ, check.declared())
