#!/usr/bin/env python3
"""Converts a llama2.c model from fp32 to 16 bits: convert.py IN.bin OUT.bin [f16|bf16-in-fp32]

The header of 7 int32 stays as it is; each fp32 value becomes an IEEE binary16, rounded to nearest
even, in the same order. `bf16-in-fp32` writes fp32 values rounded to bfloat16 instead: a file that
the demo can load, to compare the two roundings (MODEL.md has the result).
"""
import array
import struct
import sys

HEADER_BYTES = 28
# struct refuses what binary16 cannot hold, so an overflow cannot pass unseen.
CHUNK = 1 << 16


def to_bf16(bits: int) -> int:
    """fp32 bits rounded to nearest even bfloat16, as fp32 bits. Weights are finite."""
    return (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000


def main() -> int:
    if len(sys.argv) not in (3, 4):
        print(__doc__, file=sys.stderr)
        return 2
    kind = sys.argv[3] if len(sys.argv) == 4 else "f16"
    with open(sys.argv[1], "rb") as file:
        data = file.read()
    body = memoryview(data)[HEADER_BYTES:]
    with open(sys.argv[2], "wb") as out:
        out.write(data[:HEADER_BYTES])
        for start in range(0, len(body), 4 * CHUNK):
            part = bytes(body[start : start + 4 * CHUNK])
            count = len(part) // 4
            if kind == "f16":
                out.write(struct.pack(f"<{count}e", *struct.unpack(f"<{count}f", part)))
            elif kind == "bf16-in-fp32":
                words = struct.unpack(f"<{count}I", part)
                out.write(array.array("I", map(to_bf16, words)).tobytes())
            else:
                print(f"unknown kind {kind}", file=sys.stderr)
                return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
