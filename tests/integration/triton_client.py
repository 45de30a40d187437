# SPDX-License-Identifier: Apache-2.0
"""What a test asks of tritonclient -> what it got, in a process of its own: `triton_client.py TARGET`.

Pairs of a method's name and its keywords come pickled on standard input, one answer to each goes to standard output.
tritonclient registers `inference.*` in the pool of its process, which no test should share with another.
"""

import pickle
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import tritonclient.grpc as triton

Sent = tuple[str, str, np.ndarray]
"""Name, datatype and elements of an input; those of BF16 as float32."""


def main() -> None:
    """Answer until standard input ends; what tritonclient raises is its status and its message."""
    with triton.InferenceServerClient(sys.argv[1]) as client:
        while True:
            try:
                method, options = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            try:
                answer = infer(client, **options) if method == "infer" else getattr(client, method)(**options)
            except triton.InferenceServerException as error:
                answer = (error.status(), error.message())
            pickle.dump(answer, sys.stdout.buffer)
            sys.stdout.buffer.flush()


def infer(
    client: Any, model: str, inputs: Sequence[Sent], outputs: Sequence[str] = (), **options: Any
) -> Mapping[str, Any]:
    """Return the outputs by name, their datatypes, and the rest of the answer."""
    tensors = []
    for name, datatype, elements in inputs:
        tensor = triton.InferInput(name, elements.shape, datatype)
        tensor.set_data_from_numpy(elements.astype(ml_dtypes.bfloat16) if datatype == "BF16" else elements)
        tensors.append(tensor)
    wanted = [triton.InferRequestedOutput(name) for name in outputs] or None
    result = client.infer(model, tensors, outputs=wanted, **options)
    response = result.get_response()
    arrays = {tensor.name: result.as_numpy(tensor.name) for tensor in response.outputs}
    return {
        "arrays": {
            name: array.astype(np.float32) if array.dtype == ml_dtypes.bfloat16 else array
            for name, array in arrays.items()
        },
        "datatypes": {tensor.name: tensor.datatype for tensor in response.outputs},
        "parameters": {
            name: getattr(parameter, parameter.WhichOneof("parameter_choice"))
            for name, parameter in response.parameters.items()
        },
        "model": (response.model_name, response.model_version),
        "id": response.id,
    }


if __name__ == "__main__":
    main()
