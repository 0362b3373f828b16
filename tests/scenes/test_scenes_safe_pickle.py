import collections
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from stereopsis.errors import SceneError
from stereopsis.scenes.pickles.pickle_scan import RefusedPickleError, check_instructions
from stereopsis.scenes.pickles.safe_pickle import load_pickle, load_torch, loads_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def _same(a, b):
    """Equal in value and type, arrays by dtype and content."""
    if isinstance(b, collections.OrderedDict):
        b = dict(b)
    assert type(a) is type(b)
    if isinstance(b, np.ndarray):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert all(_same(x, y) for x, y in zip(a.flat, b.flat, strict=True)) if a.dtype == object else (a == b).all()
    elif isinstance(b, dict):
        assert list(a) == list(b)
        assert all(_same(a[key], b[key]) for key in b)
    elif isinstance(b, list | tuple):
        assert len(a) == len(b)
        assert all(_same(x, y) for x, y in zip(a, b, strict=True))
    else:
        assert a == b
    return True


PLAIN = {
    "atoms": [None, True, False, 0, -1, 255, 256, 70000, -(2**40), 2**2100, 1.5, -0.0, 3 + 4j, "", "é\n", "x" * 300],
    "bytes": [b"", b"\x00\xff", b"a" * 300, bytearray(b"xy\xff")],
    "containers": [(), (1,), (1, 2, 3, 4), {}, {"a": {1: 2, (3, "b"): [4]}}, {1, 2}, frozenset({"c"}), set()],
    "ordered": collections.OrderedDict([("z", 1), ("a", np.arange(3))]),
    "matrix": np.arange(16, dtype=np.float64).reshape(4, 4),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
    "big endian": np.arange(5, dtype=">i4"),
    "strings": np.array(["scene0000_00", "é"]),
    "byte strings": np.array([b"ab", b"c"]),
    "booleans": np.array([[True], [False]]),
    "complex": np.array([1 + 2j], dtype=np.complex64),
    "empty": np.zeros((0, 4), np.float32),
    "no axes": np.array(2.5),
    "scalars": [np.float32(0.1), np.int64(-3), np.bool_(True), np.str_("s")],
    "objects": np.array([["a", 1], [None, 2.5]], dtype=object),
    "dtype": np.dtype("<f4"),
    "many": list(range(2000)),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_data_comes_back_as_it_was(protocol):
    assert _same(loads_pickle(pickle.dumps(PLAIN, protocol), "it"), PLAIN)


def test_what_is_shared_stays_shared_and_arrays_can_be_written_to():
    array = np.zeros(3)
    loaded = loads_pickle(pickle.dumps({"a": array, "b": [array], "c": (array,)}), "it")
    loaded["a"][0] = 7
    assert loaded["b"][0][0] == loaded["c"][0][0] == 7


def test_fortran_object_arrays_keep_their_places():
    array = np.asfortranarray(np.array([["a", "b", "c"], ["d", "e", "f"]], dtype=object))
    np.testing.assert_array_equal(loads_pickle(pickle.dumps(array), "it"), array)


def test_modules_of_numpy_one_and_two():
    data = pickle.dumps([np.arange(3.0), np.float64(2)], 2)
    old, new = data.replace(b"numpy._core", b"numpy.core"), data.replace(b"numpy.core", b"numpy._core")
    assert old != new
    for each in (old, new):
        assert _same(loads_pickle(each, "it"), [np.arange(3.0), np.float64(2)])


def test_arrays_of_python_two():
    """Its strings are bytes to us; the array's content is one of them."""
    data = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\ntcnumpy\ndtype\n"
        b"(S'i2'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x01\\x00\\xff\\x00'\ntb."
    )
    assert _same(loads_pickle(data, "it"), np.array([1, 255], dtype="<i2"))


class _Calls:
    def __init__(self, function, *arguments, state=None):
        self._reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self._reduced


def _global(module, name):
    return f"c{module}\n{name}\n".encode()


TRAP = "trap"
CODE = f"open({TRAP!r}, 'w')"
_ARRAY = _global("numpy.core.multiarray", "_reconstruct") + b"(" + _global("numpy", "ndarray") + b"(K\x00tC\x01btR"
_F8 = _global("numpy", "dtype") + b"(X\x02\x00\x00\x00f8K\x00K\x01tR"
_F8_STATE = b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"

# What the file says, and what the message must hold.
HOSTILE = {
    "os.system": (pickle.dumps(_Calls(os.system, f"touch {TRAP}")), r"names '(posix|nt)\.system'"),
    "eval": (pickle.dumps(_Calls(eval, CODE)), r"names 'builtins\.eval'"),
    "eval of Python 2": (
        _global("__builtin__", "eval") + b"(V" + CODE.encode() + b"\ntR.",
        r"names '__builtin__\.eval'",
    ),
    "exec": (pickle.dumps(_Calls(exec, CODE)), r"names 'builtins\.exec'"),
    "getattr": (pickle.dumps(_Calls(getattr, "", "format")), r"names 'builtins\.getattr'"),
    "import": (pickle.dumps(_Calls(__import__, "antigravity")), r"names 'builtins\.__import__'"),
    "dotted name": (b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.", r"names 'numpy\.ndarray\.__init__'"),
    "dotted escape": (b"\x80\x04\x8c\x08builtins\x8c\x0fset.__class__.x\x93.", r"names 'builtins\.set\.__class__\.x'"),
    "numpy function": (pickle.dumps(_Calls(np.fromfile, "/etc/hostname")), "names 'numpy.*fromfile'"),
    "numpy load": (pickle.dumps(_Calls(np.load, "x.npy")), "names 'numpy.load'"),
    "numpy runstring": (_global("numpy.testing._private.utils", "runstring") + b".", "names 'numpy.testing"),
    "memmap": (pickle.dumps(_Calls(np.memmap, "x")), "names 'numpy.*memmap'"),
    "hidden in a list": (pickle.dumps([1, {"a": (_Calls(os.system, f"touch {TRAP}"),)}]), r"system'"),
    "persistent id": (b"Pkey\n.", "refers to an object outside the file"),
    "persistent id on the stack": (b"\x80\x02K\x01Q.", "refers to an object outside the file"),
    "extension code": (b"\x80\x02\x82\x01.", "extension registry"),
    "INST": (b"(V" + CODE.encode() + b"\nibuiltins\neval\n.", "builds an object of a class"),
    "NEWOBJ": (b"\x80\x02" + _global("collections", "OrderedDict") + b")\x81.", "builds an object of a class"),
    "out-of-band buffer": (b"\x80\x05\x97.", "expects data outside the file"),
    "state of a function": (_global("numpy", "dtype") + b"N}V__code__\nV1\ns\x86b.", "tries to change 'numpy.dtype'"),
    "state of a class": (_global("numpy", "ndarray") + b"}V__setstate__\nV1\nsb.", "tries to change 'numpy.ndarray'"),
    "state of a set": (b"\x80\x02" + _global("builtins", "set") + b"((ltR}V__class__\nV1\nsb.", "AttributeError"),
    "state of a dictionary": (b"}}V__class__\nV1\nsb.", "AttributeError"),
    "a class as a value": (_global("numpy", "ndarray") + b".", "holds 'numpy.ndarray' itself"),
    "a class as a key": (b"}" + _global("numpy", "ndarray") + b"K\x01s.", "holds 'numpy.ndarray' itself"),
    "the class called": (_global("numpy", "ndarray") + b"(K\x02tR.", "calls 'numpy.ndarray'"),
    "an array without content": (_ARRAY + b".", "without content"),
    "two states": (
        b"\x80\x03" + _ARRAY + (b"(K\x01(K\x00t" + _F8 + _F8_STATE + b"\x89C\x00tb") * 2 + b".",
        "unknown state",
    ),
    "fewer bytes than items": (
        b"\x80\x03" + _ARRAY + b"(K\x01(K\x02t" + _F8 + _F8_STATE + b"\x89C\x08" + b"\0" * 8 + b"tb.",
        "other than its own bytes",
    ),
    "negative shape": (
        b"\x80\x03" + _ARRAY + b"(K\x01(J\xff\xff\xff\xfft" + _F8 + _F8_STATE + b"\x89C\x00tb.",
        "the shape",
    ),
    "astronomic shape": (
        b"\x80\x03" + _ARRAY + b"(K\x01(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft" + _F8 + _F8_STATE + b"\x89C\x00tb.",
        "other than its own bytes",
    ),
    "dtype with fields": (
        _F8 + b"(K\x03X\x01\x00\x00\x00<N(V a\nt}V a\n(" + _F8 + b"K\x63tsK\x01K\x01K\x00tb.",
        "structured numpy dtype",
    ),
    "structured array": (pickle.dumps(np.zeros(2, [("a", "f4")])), "numpy dtype 'V4'"),
    "datetimes": (pickle.dumps(np.zeros(2, "M8[s]")), "numpy dtype 'M8'"),
    "subclass of array": (
        pickle.dumps(np.ma.masked_array([1.0], [False])),
        r"names 'numpy\.ma.*_mareconstruct'",
    ),
    "objects with a call": (pickle.dumps(np.array([_Calls(os.system, f"touch {TRAP}")], dtype=object)), r"system'"),
    "objects with a class": (pickle.dumps(np.array([np.ndarray], dtype=object)), "holds 'numpy.ndarray' itself"),
    "encode to something else": (_global("_codecs", "encode") + b"(V61\nV hex\ntR.", "bytes in disguise"),
    "bytes of a number": (_global("builtins", "bytes") + b"(J\xff\xff\xff\x7ftR.", "calls 'bytes' with int"),
    "huge table": (b"\x80\x02]r\xff\xff\xff\xff.", "asks for a table of 4294967295 entries"),
    "huge table in text": (b"]p99999999999\n.", "asks for a table of 99999999999 entries"),
    "huge string": (b"\x8d" + struct.pack("<Q", 2**62) + b"abc.", "ends in the middle"),
    "huge frame": (b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.", "damaged"),
    "contains itself": (b"]q\x00h\x00a.", "contains itself"),
    "nested": (b"]" * 5000 + b"a" * 4999 + b".", "more than 100 deep"),
    "no instruction": (b"\xff.", "0xff at 0"),
    "truncated": (pickle.dumps(PLAIN)[:-40], "ends in the middle"),
    "empty": (b"", "ends in the middle"),
    "stack underflow": (b"a.", "damaged"),
    "text": (b"hello", "damaged|refused"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_anything_else_is_refused_and_not_run(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, expected = HOSTILE[case]
    file = tmp_path / "infos.pkl"
    file.write_bytes(data)
    with pytest.raises(SceneError, match=expected) as error:
        load_pickle(file)
    assert str(file) in str(error.value)
    assert not (tmp_path / TRAP).exists()


def test_the_traps_do_spring_without_the_restriction(tmp_path, monkeypatch):
    """Otherwise the test above could not fail."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(HOSTILE["eval"][0]).close()
    assert (tmp_path / TRAP).exists()


def test_a_short_file_cannot_unfold():
    """Each frozenset copies the list: 24 bytes of file for 0.8 MB of memory."""
    copies = (b"\x8c\x08builtins\x8c\x09frozenset\x93h\x00\x85R") * 40
    data = b"\x80\x04](" + b"K\x01" * 100_000 + b"eq\x00(" + copies + b"l."
    with pytest.raises(SceneError, match="unfolds to more than"):
        loads_pickle(data, "it")


def test_doubling_is_walked_once():
    """Twenty-five lists that each hold the one before twice are 2^25 items to a walk that forgets."""
    value = []
    for _ in range(25):
        value = [value, value]
    loaded = loads_pickle(pickle.dumps(value), "it")
    assert loaded[0] is loaded[1]


def test_size_limit_and_absent_file(tmp_path):
    file = tmp_path / "big.pkl"
    file.write_bytes(pickle.dumps(list(range(100))))
    with pytest.raises(SceneError, match=r"more than the 100 that are read.*raise max_bytes"):
        load_pickle(file, max_bytes=100)
    with pytest.raises(SceneError, match="does not exist; check the path"):
        load_pickle(tmp_path / "none.pkl")
    with pytest.raises(SceneError, match="is not a file"):
        load_pickle(tmp_path)


def test_the_scan_covers_every_instruction_of_every_protocol():
    for protocol in PROTOCOLS:
        check_instructions(pickle.dumps(PLAIN, protocol))
    with pytest.raises(RefusedPickleError):
        check_instructions(b"\x80\x02K\x01Q.")
    check_instructions(b"\x80\x02K\x01Q.", persistent=True)


def test_damage_anywhere_ends_in_one_kind_of_error():
    """Random bytes changed: either plain data comes out or a SceneError, and never a crash or a large allocation."""
    random = np.random.default_rng(0)
    small = {key: PLAIN[key] for key in ("matrix", "strings", "objects", "scalars", "ordered")}
    outcomes = collections.Counter()
    for protocol in (0, 2, 4):
        data = pickle.dumps(small, protocol)
        for _ in range(40):
            damaged = bytearray(data)
            for place in random.integers(0, len(data), random.integers(1, 4)):
                damaged[place] = random.integers(0, 256)
            try:
                loads_pickle(bytes(damaged), "it")
                outcomes["read"] += 1
            except SceneError:
                outcomes["refused"] += 1
    assert outcomes["read"] > 10
    assert outcomes["refused"] > 40


TENSORS = {
    "float": torch.arange(6.0).reshape(2, 3),
    "double": torch.tensor(2.5, dtype=torch.float64),
    "half": torch.tensor([0.5, -2.0], dtype=torch.float16),
    "long": torch.tensor([[2**40]]),
    "bool": torch.tensor([True, False]),
    "byte": torch.tensor([255], dtype=torch.uint8),
    "none": torch.zeros(0, 3),
    "transposed": torch.arange(6).reshape(2, 3).T,
    "part": torch.arange(10)[3:8:2],
    "expanded": torch.tensor([1.0, 2.0]).expand(3, 2),
}


def test_tensors_become_the_arrays_that_torch_would_give(tmp_path):
    content = {**TENSORS, "xyz": np.arange(6, dtype=np.float32).reshape(2, 3), "none given": None}
    torch.save(content, tmp_path / "scene.pth")
    loaded = load_torch(tmp_path / "scene.pth")
    assert list(loaded) == list(content)
    for name, tensor in TENSORS.items():
        assert _same(loaded[name], tensor.numpy().copy()), name
    np.testing.assert_array_equal(loaded["xyz"], content["xyz"])
    assert loaded["none given"] is None


def test_bfloat16_becomes_float32_exactly(tmp_path):
    tensor = torch.tensor([1.0, -0.15625, 3e38, float("inf")], dtype=torch.bfloat16)
    torch.save({"a": tensor, "w": torch.nn.Parameter(tensor.float())}, tmp_path / "a.pt")
    loaded = load_torch(tmp_path / "a.pt")
    assert _same(loaded["a"], tensor.float().numpy())
    assert _same(loaded["w"], tensor.float().numpy())


def test_the_old_form_of_torch_is_refused_with_the_way_out(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(SceneError, match=r"form before 1\.6.*weights_only=True"):
        load_torch(tmp_path / "old.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(SceneError, match=r"is not a \.pth file"):
        load_torch(tmp_path / "text.pth")


def _archive(path, pickled, storage=b"\0" * 16, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/data/0", storage)
    return path


def _tensor(size=(4,), stride=(1,), offset=0, numel=4, kind=b"FloatStorage", key="0"):
    """A tensor's pickle by hand."""

    def number(n):
        return b"J" + struct.pack("<i", n)

    def numbers(values):
        return b"(" + b"".join(number(n) for n in values) + b"t"

    storage = b"(V" + b"storage\nctorch\n" + kind + b"\nV" + key.encode() + b"\nVcpu\n" + number(numel) + b"tQ"
    hooks = b"ccollections\nOrderedDict\n)R"
    arguments = storage + number(offset) + numbers(size) + numbers(stride) + b"\x89" + hooks
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR."


def test_a_tensor_by_hand(tmp_path):
    values = np.array([1, 2, 3, 4], np.float32)
    file = _archive(tmp_path / "a.pth", _tensor(), values.tobytes())
    assert _same(load_torch(file), values)
    file = _archive(tmp_path / "b.pth", _tensor(size=(2, 2), stride=(1, 1), offset=1), values.tobytes())
    assert _same(load_torch(file), np.array([[2, 3], [3, 4]], np.float32))


FAULTY_TENSORS = {
    "beyond its storage": ({"size": (5,)}, "reaches to item 4 of a storage of 4"),
    "beyond by stride": ({"size": (2,), "stride": (4,)}, "reaches to item 4"),
    "beyond by offset": ({"offset": 1}, "reaches to item 4"),
    "negative offset": ({"offset": -1}, "the shape"),
    "negative stride": ({"stride": (-1,)}, "the shape"),
    "other number of strides": ({"stride": (1, 1)}, "without its storage"),
    "storage of another size": ({"numel": 3}, "gives storage 0 3 items, but it has 16 bytes"),
    "unknown storage": ({"kind": b"load"}, r"names 'torch\.load'"),
    "no such storage": ({"key": "7"}, "cannot be read as a .pth file|damaged"),
    "path in the key": ({"key": "../data.pkl"}, "unknown object"),
    "unfolds": ({"size": (10000, 10000), "stride": (0, 0)}, "unfolds to more than"),
}


@pytest.mark.parametrize("case", FAULTY_TENSORS)
def test_tensors_that_do_not_fit_their_memory(tmp_path, case):
    changes, expected = FAULTY_TENSORS[case]
    with pytest.raises(SceneError, match=expected):
        load_torch(_archive(tmp_path / "a.pth", _tensor(**changes)))


def test_hostile_archives(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for case in ("os.system", "eval", "numpy load", "hidden in a list"):
        data, expected = HOSTILE[case]
        with pytest.raises(SceneError, match=expected):
            load_torch(_archive(tmp_path / "a.pth", data))
    assert not (tmp_path / TRAP).exists()
    with pytest.raises(SceneError, match="compressed entry"):
        load_torch(_archive(tmp_path / "a.pth", _tensor(), compression=zipfile.ZIP_DEFLATED))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme", "")
    (tmp_path / "b.pth").write_bytes(buffer.getvalue())
    with pytest.raises(SceneError, match=r"0 entries '\*/data.pkl'"):
        load_torch(tmp_path / "b.pth")
