"""The Open Inference Protocol v2 over REST, for both of its sides: requests and answers as tensors.

Pure and small (msgspec and the standard library), so that model servers, which know no control plane, and the router,
which knows no numpy, read and write the protocol by the same code.

Sources: KServe "Open Inference Protocol" REST specification; Triton "Binary Tensor Data Extension".
"""

from model_servers.oip.answers import Asked, answer_tensors, error, metadata, response
from model_servers.oip.rows import MOST_ROWS, Input, declared, rows
from model_servers.oip.tensors import HEADER_LENGTH, Malformed, Message, Output, Tensor, decode, encode

__all__ = [
    "HEADER_LENGTH",
    "MOST_ROWS",
    "Asked",
    "Input",
    "Malformed",
    "Message",
    "Output",
    "Tensor",
    "answer_tensors",
    "declared",
    "decode",
    "encode",
    "error",
    "metadata",
    "response",
    "rows",
]
