"""Boosted trees and random forests through the libraries' documented C interfaces.

Why not `import xgboost`: it imports pandas and scikit-learn where they are installed (over 100 MB in every model
server) and its Python layer costs as much as the trees for one row. The functions used here are the ones the C API
documents; the tests hold every answer equal to the Python packages'.

Sources: xgboost "C API" (c_api.h: XGBoosterPredictFromDense, XGBoosterPredictFromDMatrix), LightGBM "C API"
(c_api.h: LGBM_BoosterPredictForMat).
"""

import ctypes
import importlib.util
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model_servers.native import shap, walk
from model_servers.native.encode import Columns, Encoder, Row
from model_servers.native.manifest import BadArtifact, Manifest

_Floats = NDArray[np.float64]
_log = logging.getLogger(__name__)


class Trees(Protocol):
    """A loaded ensemble. `matrix` is float32, C-contiguous, NaN for missing."""

    def margins(self, matrix: NDArray[Any]) -> _Floats:
        """(n, outputs)"""
        ...

    def prepare_contributions(self, columns: int) -> None:
        """Before the first of many calls of `contributions`, which it makes cheaper."""
        ...

    def contributions(self, matrix: NDArray[Any]) -> _Floats:
        """TreeSHAP in margin units, the bias last: (n, outputs, columns + 1)"""
        ...


class TreeScorer:
    def __init__(self, manifest: Manifest, folder: Path, threads: int) -> None:
        self._encoder = Encoder(manifest.features, manifest.columns)
        self._features = len(manifest.features)
        self._sources = np.array(self._encoder.sources, dtype=np.int64)
        self._trees: Trees
        if manifest.kind == "lightgbm":
            self._trees = LightGBM(folder / "booster.txt", manifest.outputs, threads)
        else:
            self._trees = XGBoost(folder / "booster.ubj", threads)
            self._trees.prepare_margins(self._encoder.width)

    def rows(self, rows: Sequence[Row]) -> _Floats:
        return self._trees.margins(self._encoder.matrix(rows))

    def columns(self, columns: Columns) -> _Floats:
        return self._trees.margins(self._encoder.column_matrix(columns))

    def prepare_contributions(self) -> None:
        self._trees.prepare_contributions(self._encoder.width)

    def contributions(self, rows: Sequence[Row], outputs: NDArray[np.int64]) -> tuple[_Floats, _Floats]:
        found = self._trees.contributions(self._encoder.matrix(rows))[np.arange(len(rows)), outputs]
        values = np.zeros((len(rows), self._features))
        np.add.at(values.T, self._sources, found[:, :-1].T)
        return values, found[:, -1]


class XGBoost:
    def __init__(self, model: Path, threads: int) -> None:
        self._lib = _library("xgboost", "libxgboost")
        self._lib.XGBGetLastError.restype = ctypes.c_char_p
        self._handle = ctypes.c_void_p()
        self._call(self._lib.XGBoosterCreate, None, ctypes.c_uint64(0), ctypes.byref(self._handle))
        self._call(self._lib.XGBoosterLoadModel, self._handle, str(model).encode())
        self._call(self._lib.XGBoosterSetParam, self._handle, b"nthread", str(threads).encode())
        # One for all calls: the library reads files of the cgroup whenever it makes one, 40 us of a call's 230.
        self._proxy = ctypes.c_void_p()
        self._call(self._lib.XGProxyDMatrixCreate, ctypes.byref(self._proxy))
        self._dmatrix = json.dumps({"missing": float("nan"), "nthread": threads}).encode()
        self._margin = self._config(1) | {"missing": float("nan"), "cache_id": 0}
        self._margin_bytes = json.dumps(self._margin).encode()
        self._contribs_bytes = json.dumps(self._config(2)).encode()
        self._tables: shap.Tables | None = None
        self._bias = 0.0
        self._walk: walk.Walk | None = None
        self.walks_up_to = 0  # rows of one call; more are for the library

    @staticmethod
    def _config(kind: int) -> dict[str, Any]:
        return {"type": kind, "training": False, "iteration_begin": 0, "iteration_end": 0, "strict_shape": True}

    def prepare_margins(self, columns: int) -> None:
        """Walk the trees ourselves for few rows, where they allow it, the library agrees and it pays."""
        try:
            made = walk.of_xgboost(json.loads(self._document()), columns, self._library_margins)
        except walk.Unsuitable as exc:
            _log.info("the library answers every row: %s", exc)
            return
        self._walk, self.walks_up_to = made, walk.faster_until(made, self._library_margins)

    def margins(self, matrix: NDArray[Any]) -> _Floats:
        if self._walk is not None and 0 < len(matrix) <= self.walks_up_to:
            return self._walk.margins(matrix)
        return self._library_margins(matrix)

    def _library_margins(self, matrix: NDArray[Any]) -> _Floats:
        shape, dims, out = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64(), ctypes.POINTER(ctypes.c_float)()
        self._call(
            self._lib.XGBoosterPredictFromDense,
            self._handle,
            _array_interface(matrix),
            self._margin_bytes,
            self._proxy,
            ctypes.byref(shape),
            ctypes.byref(dims),
            ctypes.byref(out),
        )
        return _copied(out, [shape[i] for i in range(dims.value)])

    def prepare_contributions(self, columns: int) -> None:
        """Make tables that look attributions up, where the trees allow it and the library agrees with them."""
        try:
            tables = shap.of_xgboost(json.loads(self._document()), columns)
        except shap.Unsuitable as exc:
            _log.info("attributions are computed by the library: %s", exc)
            return
        probe = tables.probe(16)
        own, found = tables.contributions(probe), self.contributions(probe)[:, 0]
        if not np.allclose(own, found[:, :-1], rtol=1e-4, atol=1e-4):
            _log.warning("attributions are computed by the library: the tables do not agree with it")
            return
        self._tables, self._bias = tables, float(found[0, -1])

    def _document(self) -> bytes:
        size, text = ctypes.c_uint64(), ctypes.POINTER(ctypes.c_char)()
        self._call(
            self._lib.XGBoosterSaveModelToBuffer,
            self._handle,
            b'{"format":"json"}',
            ctypes.byref(size),
            ctypes.byref(text),
        )
        return ctypes.string_at(text, size.value)

    def contributions(self, matrix: NDArray[Any]) -> _Floats:
        if self._tables is not None:
            made = np.full((len(matrix), 1, matrix.shape[1] + 1), self._bias)
            made[:, 0, :-1] = self._tables.contributions(matrix)
            return made
        data = ctypes.c_void_p()
        self._call(self._lib.XGDMatrixCreateFromDense, _array_interface(matrix), self._dmatrix, ctypes.byref(data))
        try:
            shape, dims, out = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64(), ctypes.POINTER(ctypes.c_float)()
            self._call(
                self._lib.XGBoosterPredictFromDMatrix,
                self._handle,
                data,
                self._contribs_bytes,
                ctypes.byref(shape),
                ctypes.byref(dims),
                ctypes.byref(out),
            )
            return _copied(out, [shape[i] for i in range(dims.value)])
        finally:
            self._lib.XGDMatrixFree(data)

    def _call(self, function: Callable[..., int], *args: object) -> None:
        if function(*args) != 0:
            raise BadArtifact(f"xgboost: {self._lib.XGBGetLastError().decode(errors='replace').splitlines()[0]}")

    def __del__(self) -> None:
        if getattr(self, "_proxy", None):
            self._lib.XGDMatrixFree(self._proxy)
        if getattr(self, "_handle", None):
            self._lib.XGBoosterFree(self._handle)


class LightGBM:
    _RAW, _CONTRIB, _FLOAT32 = 1, 3, 0  # C_API_PREDICT_RAW_SCORE, C_API_PREDICT_CONTRIB, C_API_DTYPE_FLOAT32

    def __init__(self, model: Path, outputs: int, threads: int) -> None:
        self._lib = _library("lightgbm", "lib_lightgbm")
        self._lib.LGBM_GetLastError.restype = ctypes.c_char_p
        self._handle, rounds = ctypes.c_void_p(), ctypes.c_int()
        path = str(model).encode()
        self._call(self._lib.LGBM_BoosterCreateFromModelfile, path, ctypes.byref(rounds), ctypes.byref(self._handle))
        self._outputs = outputs
        self._parameters = f"num_threads={threads} verbosity=-1".encode()

    def margins(self, matrix: NDArray[Any]) -> _Floats:
        return self._predict(matrix, self._RAW, (len(matrix), self._outputs))

    def prepare_contributions(self, columns: int) -> None:
        """The library's own are as good as it gets here."""

    def contributions(self, matrix: NDArray[Any]) -> _Floats:
        return self._predict(matrix, self._CONTRIB, (len(matrix), self._outputs, matrix.shape[1] + 1))

    def _predict(self, matrix: NDArray[Any], kind: int, shape: tuple[int, ...]) -> _Floats:
        out = np.empty(shape, dtype=np.float64)
        written = ctypes.c_int64()
        self._call(
            self._lib.LGBM_BoosterPredictForMat,
            self._handle,
            ctypes.c_void_p(matrix.ctypes.data),
            self._FLOAT32,
            ctypes.c_int32(matrix.shape[0]),
            ctypes.c_int32(matrix.shape[1]),
            1,  # row-major
            kind,
            0,  # from the first round ...
            -1,  # ... to the last
            self._parameters,
            ctypes.byref(written),
            out.ctypes.data_as(ctypes.POINTER(ctypes.c_double)),
        )
        if written.value != out.size:
            raise BadArtifact(f"lightgbm: {written.value} values instead of {out.size}")
        return out

    def _call(self, function: Callable[..., int], *args: object) -> None:
        if function(*args) != 0:
            raise BadArtifact(f"lightgbm: {self._lib.LGBM_GetLastError().decode(errors='replace')}")

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._lib.LGBM_BoosterFree(self._handle)


def _library(package: str, stem: str) -> ctypes.CDLL:
    """The shared library inside an installed package, without importing the package."""
    spec = importlib.util.find_spec(package)
    for location in (spec.submodule_search_locations or []) if spec else []:
        for suffix in (".so", ".dylib", ".dll"):
            for folder in (Path(location) / "lib", Path(location) / "bin"):
                if (path := folder / f"{stem}{suffix}").is_file():
                    return ctypes.CDLL(str(path))
    raise BadArtifact(f"this artifact needs the package {package!r}, which is not installed")


def _array_interface(matrix: NDArray[Any]) -> bytes:
    """NumPy's array interface v3 as the JSON that xgboost reads."""
    rows, width = matrix.shape
    return b'{"data":[%d,true],"strides":null,"typestr":"<f4","shape":[%d,%d],"version":3}' % (
        matrix.ctypes.data,
        rows,
        width,
    )


def _copied(out: Any, shape: list[int]) -> _Floats:
    """xgboost's buffer is overwritten by this thread's next call."""
    copy = np.empty(shape, dtype=np.float32)
    if copy.size:
        ctypes.memmove(copy.ctypes.data, out, copy.nbytes)
    return copy.astype(np.float64)
