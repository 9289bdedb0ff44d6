"""A stand-in for TensorFlow Serving on the loopback interface, over gRPC and REST.

It speaks the server's protocols, as far as the package uses them: the real messages and stubs of
`tensorflow-serving-api`, and JSON as TensorFlow Serving's REST documentation describes it. The
answers come from the C++ loader.
"""

import base64
import binascii
import json
import re
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from helpers.c_api import DTYPES, STRING, CApiModel


class RequestRefusedError(Exception):
    """What the server answers by INVALID_ARGUMENT, or 400."""


class LoopbackServer:
    """Serve `model` as `name` while the context lasts.

    Attributes:
        grpc_address: `localhost:<port>`.
        url: `http://localhost:<port>/v1/models/<name>`.
    """

    def __init__(self, model: CApiModel, name: str) -> None:
        self.model, self.name, self._lock = model, name, threading.Lock()
        self._grpc = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            _PredictionService(self), self._grpc
        )
        self.grpc_address = f"localhost:{self._grpc.add_insecure_port('localhost:0')}"
        self._http = ThreadingHTTPServer(("localhost", 0), _rest_handler(self))
        self.url = f"http://localhost:{self._http.server_port}/v1/models/{name}"

    def __enter__(self) -> "LoopbackServer":
        self._grpc.start()
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._grpc.stop(grace=None).wait()

    def predict(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if signature not in self.model.signatures:
            raise RequestRefusedError(f"Serving signature key {signature!r} not found.")
        if set(inputs) != set(self.model.signatures[signature][0]):
            raise RequestRefusedError(f"input keys are not those of {signature}: {set(inputs)}")
        with self._lock:
            answer = self.model.ask(signature, inputs)
        if isinstance(answer, str):
            raise RequestRefusedError(answer)
        return answer


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, server: LoopbackServer) -> None:
        self.server = server

    def Predict(self, request, context):  # noqa: N802, the name in the protocol
        if request.model_spec.name != self.server.name:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.model_spec.name}")
        inputs = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
        try:
            signature = request.model_spec.signature_name or "serving_default"
            answer = self.server.predict(signature, inputs)
        except RequestRefusedError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        response = predict_pb2.PredictResponse(model_spec=request.model_spec)
        for name, array in answer.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(array))
        return response


def _rest_handler(server: LoopbackServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not re.fullmatch(f"/v1/models/{server.name}(/versions/1)?:predict", self.path):
                return self._answer(404, {"error": "Servable not found for request"})
            try:
                return self._answer(200, _predict_json(server, json.loads(body)))
            except (RequestRefusedError, ValueError) as error:
                return self._answer(400, {"error": str(error)})

        def _answer(self, status: int, content: dict) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _predict_json(server: LoopbackServer, body: dict) -> dict:
    signature = body.get("signature_name", "serving_default")
    if signature not in server.model.signatures:
        raise RequestRefusedError(f"Serving signature key {signature!r} not found.")
    known = server.model.signatures[signature][0]
    rows = "instances" in body
    if rows:
        named = [r if isinstance(r, dict) and r.keys() == known.keys() else None
                 for r in body["instances"]]  # fmt: skip
        if None in named:
            (name,) = known  # of a single input, the client may leave out the name
            named = [{name: row} for row in body["instances"]]
        columns = {name: [row[name] for row in named] for name in known}
    else:
        columns = body["inputs"]
    inputs = {name: _array(column, known[name][1]) for name, column in columns.items()}
    answer = {k: v.tolist() for k, v in server.predict(signature, inputs).items()}
    if len(answer) == 1:  # of a single output, the server leaves out the name
        (only,) = answer.values()
        return {"predictions" if rows else "outputs": only}
    if rows:
        values = zip(*answer.values(), strict=True)
        return {"predictions": [dict(zip(answer, row, strict=True)) for row in values]}
    return {"outputs": answer}


def _array(values: list, code: int) -> np.ndarray:
    if code != STRING:
        array = np.asarray(values)
        if array.size and (array.dtype.kind != "i" or array.min() < 0 or array.max() > 255):
            raise RequestRefusedError("a value is no uint8")
        return array.astype(DTYPES[code])
    array = np.empty(len(values), object)
    for index, value in enumerate(values):
        try:
            array[index] = base64.b64decode(value["b64"], validate=True)
        except (TypeError, KeyError, binascii.Error) as error:
            raise RequestRefusedError(f"no b64: {error}") from None
    return array
