"""Warm-up requests, read with the message classes of TensorFlow Serving."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from siamese_keras.serving.signatures import example_requests
from siamese_keras.serving.warmup import prediction_log, write_warmup_requests


def test_warmup_requests_are_what_the_real_messages_say(tmp_path):
    requests = example_requests((28, 28, 1), batch_size=1)
    write_warmup_requests(tmp_path / "requests", "tiny", requests)
    records = tf.data.TFRecordDataset(str(tmp_path / "requests")).as_numpy_iterator()
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    expected = []
    for signature, inputs in requests.items():
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "tiny"
        request.model_spec.signature_name = signature
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
        predict_log = prediction_log_pb2.PredictLog(request=request)
        expected.append(prediction_log_pb2.PredictionLog(predict_log=predict_log))
    assert logs == expected
    assert len(logs) == 4


@pytest.mark.parametrize("size", [1, 127, 128, 16_383, 16_384, 3_000_000])
def test_lengths_of_every_number_of_bytes_are_encoded(size):
    encoded = prediction_log("m", "s", {"x": np.zeros(size, np.uint8)})
    log = prediction_log_pb2.PredictionLog.FromString(encoded)
    assert tf.make_ndarray(log.predict_log.request.inputs["x"]).shape == (size,)
