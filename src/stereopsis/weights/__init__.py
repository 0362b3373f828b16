"""Weight files: read a tensor at a time without executing anything, written whole or not at all."""

from stereopsis.weights.reading import Shard, Spec, read_weights, shards_of
from stereopsis.weights.writing import SHARD_BYTES, ShardWriter, TensorFileWriter, write_json

__all__ = [
    "SHARD_BYTES",
    "Shard",
    "ShardWriter",
    "Spec",
    "TensorFileWriter",
    "read_weights",
    "shards_of",
    "write_json",
]
