"""The C++ loader that TensorFlow Serving calls, reached through the C API of TensorFlow's wheel.

`CApiModel` starts this file as a process of its own, since an abort in there must not end the
tests. The process does not import TensorFlow: it loads the C library alone, as a server does.
"""

import ctypes
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np

STRING = 7  # numbers of TF_DataType
DTYPES = {1: np.float32, 2: np.float64, 3: np.int32, 4: np.uint8, 9: np.int64, 10: np.bool_}


class CApiModel:
    """A SavedModel in a process of its own; `ask` returns arrays, or the error's text."""

    def __init__(self, path: Path) -> None:
        import tensorflow as tf
        from tensorflow.core.protobuf import saved_model_pb2

        content = (path / "saved_model.pb").read_bytes()
        (graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
        self.signatures = {
            name: (
                {key: (info.name, info.dtype) for key, info in definition.inputs.items()},
                {key: info.name for key, info in definition.outputs.items()},
            )
            for name, definition in graph.signature_def.items()
            if definition.method_name == "tensorflow/serving/predict"
        }
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(Path(tf.__file__).parent), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._receive()  # whether it has been loaded

    def ask(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray] | str:
        """Run a signature: string inputs are arrays of `bytes` objects, others any array."""
        known, outputs = self.signatures[signature]
        feeds = [(known[name][0], array) for name, array in inputs.items()]
        pickle.dump((feeds, list(outputs.values())), self.process.stdin)
        self.process.stdin.flush()
        answer = self._receive()
        return answer if isinstance(answer, str) else dict(zip(outputs, answer, strict=True))

    def peak_memory(self) -> int:
        """Return the most memory that the process has used so far, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=30)

    def _receive(self):
        try:
            return pickle.load(self.process.stdout)
        except EOFError:
            raise RuntimeError(f"the process ended: {self.process.wait()}") from None


class _Library:
    def __init__(self, folder: Path) -> None:
        # RTLD_LOCAL: the library brings an OpenSSL that clashes with the interpreter's.
        self.c = ctypes.CDLL(str(folder / "libtensorflow_cc.so.2"), mode=ctypes.RTLD_LOCAL)
        for name in [
            "TF_NewStatus",
            "TF_NewGraph",
            "TF_NewSessionOptions",
            "TF_LoadSessionFromSavedModel",
            "TF_Message",
            "TF_AllocateTensor",
            "TF_TensorData",
            "TF_GraphOperationByName",
            "TF_StringGetDataPointer",
        ]:
            function = getattr(self.c, name)
            function.restype = ctypes.c_char_p if name == "TF_Message" else ctypes.c_void_p
        self.c.TF_Dim.restype = ctypes.c_int64
        self.c.TF_StringGetSize.restype = ctypes.c_size_t
        self.status = ctypes.c_void_p(self.c.TF_NewStatus())

    def error(self) -> str | None:
        if not self.c.TF_GetCode(self.status):
            return None
        return self.c.TF_Message(self.status).decode()

    def tensor(self, array: np.ndarray) -> ctypes.c_void_p:
        dims = (ctypes.c_int64 * array.ndim)(*array.shape)
        strings = array.dtype == object
        code = STRING if strings else next(c for c, d in DTYPES.items() if d == array.dtype)
        size = 24 * array.size if strings else array.nbytes  # 24 bytes: a TF_TString
        tensor = ctypes.c_void_p(
            self.c.TF_AllocateTensor(code, dims, array.ndim, ctypes.c_size_t(size))
        )
        data = self.c.TF_TensorData(tensor)
        if not strings:
            ctypes.memmove(data, array.tobytes(), size)
            return tensor
        for index, text in enumerate(array.ravel()):
            place = ctypes.c_void_p(data + 24 * index)
            self.c.TF_StringInit(place)
            self.c.TF_StringCopy(place, text, ctypes.c_size_t(len(text)))
        return tensor

    def array(self, tensor: ctypes.c_void_p) -> np.ndarray:
        shape = [self.c.TF_Dim(tensor, i) for i in range(self.c.TF_NumDims(tensor))]
        dtype = np.dtype(DTYPES[self.c.TF_TensorType(tensor)])
        data = ctypes.string_at(self.c.TF_TensorData(tensor), int(np.prod(shape)) * dtype.itemsize)
        return np.frombuffer(data, dtype).reshape(shape)


class _Output(ctypes.Structure):
    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


class Session:
    """A SavedModel loaded by the C++ loader."""

    def __init__(self, tensorflow_folder: Path, path: Path) -> None:
        self.library = _Library(tensorflow_folder)
        c = self.library.c
        self.graph = ctypes.c_void_p(c.TF_NewGraph())
        tags = (ctypes.c_char_p * 1)(b"serve")
        self.session = ctypes.c_void_p(
            c.TF_LoadSessionFromSavedModel(
                ctypes.c_void_p(c.TF_NewSessionOptions()),
                None,
                str(path).encode(),
                tags,
                1,
                self.graph,
                None,
                self.library.status,
            )
        )
        if error := self.library.error():
            raise RuntimeError(error)

    def _endpoints(self, names: list[str]) -> ctypes.Array:
        outputs = (_Output * len(names))()
        for output, name in zip(outputs, names, strict=True):
            operation, _, index = name.partition(":")
            output.operation = self.library.c.TF_GraphOperationByName(
                self.graph, operation.encode()
            )
            output.index = int(index)
        return outputs

    def run(self, feeds: list[tuple[str, np.ndarray]], fetches: list[str]) -> list | str:
        c = self.library.c
        inputs = [self.library.tensor(array) for _, array in feeds]
        values = (ctypes.c_void_p * len(feeds))(*(tensor.value for tensor in inputs))
        results = (ctypes.c_void_p * len(fetches))()
        c.TF_SessionRun(
            self.session,
            None,
            self._endpoints([name for name, _ in feeds]),
            values,
            len(feeds),
            self._endpoints(fetches),
            results,
            len(fetches),
            None,
            0,
            None,
            self.library.status,
        )
        answer = self.library.error()
        if answer is None:
            answer = [self.library.array(ctypes.c_void_p(result)) for result in results]
        for tensor in (*inputs, *(ctypes.c_void_p(result) for result in results if result)):
            c.TF_DeleteTensor(tensor)
        return answer


def _serve() -> None:
    session = Session(Path(sys.argv[1]), Path(sys.argv[2]))
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    pickle.dump(True, answers)
    answers.flush()
    while True:
        try:
            feeds, fetches = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(session.run(feeds, fetches), answers)
        answers.flush()


if __name__ == "__main__":
    _serve()
