"""A pickle's instructions, looked at before any of them is carried out.

A pickle is a program. The restricted loader (`stereopsis.scenes.pickles.safe_pickle`) decides what it may name;
this scan comes first and stops instructions that plain data never needs: references to objects outside the file,
object construction by class, and numbers that would make the interpreter reserve memory which the file does not
back. It reads runs of instructions with one regular expression, because files of 100 MB are usual.
"""

import pickle
import pickletools
import re

_LENGTH_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_REFUSED = {
    "PERSID": "refers to an object outside the file",
    "BINPERSID": "refers to an object outside the file",
    "EXT1": "uses a code of the extension registry",
    "EXT2": "uses a code of the extension registry",
    "EXT4": "uses a code of the extension registry",
    "INST": "builds an object of a class",
    "OBJ": "builds an object of a class",
    "NEWOBJ": "builds an object of a class",
    "NEWOBJ_EX": "builds an object of a class",
    "NEXT_BUFFER": "expects data outside the file",
    "READONLY_BUFFER": "expects data outside the file",
}
_BY_CODE = {opcode.code.encode("latin1"): opcode for opcode in pickletools.opcodes}
_PUTS = (b"p", b"r")  # PUT, LONG_BINPUT: their number becomes the size of a table
_STOP = b"."
_RUN = 256  # instructions per match: bounds what the expression remembers


class RefusedPickleError(pickle.UnpicklingError):
    """A pickle asks for something that plain data does not need; the message completes "the file ..."."""


def _run_pattern() -> re.Pattern[bytes]:
    """Matches up to `_RUN` instructions that need no second look."""
    bare, parts = b"", []
    for code, opcode in _BY_CODE.items():
        if code in (*_PUTS, _STOP) or opcode.name in _REFUSED:
            continue
        literal = re.escape(code)
        size = 0 if opcode.arg is None else opcode.arg.n
        if opcode.arg is None:
            bare += literal
        elif size >= 0:
            parts.append(literal + b".{%d}" % size)
        elif size == pickletools.UP_TO_NEWLINE:
            lines = 2 if opcode.name == "GLOBAL" else 1
            parts.append(literal + rb"[^\n]*\n" * lines)
        elif _LENGTH_BYTES[size] == 1:
            lengths = b"|".join(re.escape(bytes([length])) + b".{%d}" % length for length in range(256))
            parts.append(literal + b"(?:" + lengths + b")")
    return re.compile(b"(?:[" + bare + b"]|" + b"|".join(parts) + b"){1,%d}" % _RUN, re.DOTALL)


_INSTRUCTIONS = _run_pattern()


def check_instructions(data: bytes, *, persistent: bool = False, objects: bool = False) -> None:
    """Check every instruction of a pickle without carrying any out.

    Args:
        data: the pickle.
        persistent: allow references by id to objects outside the pickle, as PyTorch's files have them.
        objects: allow objects of classes; the loader must have harmless ones of its own in their place.

    Raises:
        RefusedPickleError: an instruction is unknown, refused, incomplete, or asks for memory that the file's
            size does not justify; or the end is missing.
    """
    allowed = {name for name, given in (("BINPERSID", persistent), ("NEWOBJ", objects)) if given}
    position = 0
    while True:
        match = _INSTRUCTIONS.match(data, position)
        if match:
            position = match.end()
            continue
        code = data[position : position + 1]
        if code == _STOP:
            return
        if not code:
            raise RefusedPickleError("ends in the middle")
        position = _step(data, position, code, allowed)


def _step(data: bytes, position: int, code: bytes, allowed: set[str]) -> int:
    """Where the instruction at `position`, which no run covers, ends."""
    opcode = _BY_CODE.get(code)
    if opcode is None:
        raise RefusedPickleError(f"holds the byte {code[0]:#04x} at {position}, which is no pickle instruction")
    if opcode.name in _REFUSED and opcode.name not in allowed:
        raise RefusedPickleError(f"{_REFUSED[opcode.name]} (instruction {opcode.name} at byte {position})")
    if opcode.arg is None:
        return position + 1
    if code in _PUTS:
        end = data.find(b"\n", position) + 1 if code == b"p" else position + 5
        number = data[position + 1 : end]
        index = int(number) if code == b"p" and number.strip().isdigit() else int.from_bytes(number, "little")
        if end <= position or index > len(data):
            raise RefusedPickleError(f"asks for a table of {index} entries at byte {position}, more than its own bytes")
        return end
    width = _LENGTH_BYTES.get(opcode.arg.n, 0)
    length = int.from_bytes(data[position + 1 : position + 1 + width], "little")
    end = position + 1 + width + length
    if not width or end > len(data):
        raise RefusedPickleError(f"ends in the middle (instruction {opcode.name} at byte {position})")
    return end
