"""Reading files of strangers within limits: JSON, YAML, arrays, images, tensors and bytes that no file can blow up.

Every file that the package reads is opened here (`tests/test_reading_bypasses.py` looks for others). Whatever is
wrong is an `OSError` or a `ValueError` with a sentence, which the reader of a layout turns into its own error with the
remedy. Limits are far above what real files have; the environment raises them.
"""

import errno
import io
import json
import os
import stat
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import yaml

if TYPE_CHECKING:  # heavy, and imported where they are used
    import numpy as np
    from PIL import Image

MOST_BYTES = ("STEREOPSIS_MOST_MEGABYTES", 2048)
MOST_PIXELS = ("STEREOPSIS_MOST_MEGAPIXELS", 100)
MOST_TEXT = ("STEREOPSIS_MOST_TEXT_MEGABYTES", 1024)
"""Environment variables, and the millions that hold without them."""

MOST_YAML_BYTES = 1_000_000
MOST_YAML_NODES = 100_000
MOST_YAML_DEPTH = 50


def limit(of: tuple[str, int]) -> int:
    """A limit in bytes or pixels: the environment's, or the one that holds without it.

    Raises:
        ValueError: the environment says something else than a positive number.
    """
    name, usual = of
    said = os.environ.get(name, str(usual))
    if not said.isdigit() or int(said) < 1:
        raise ValueError(f"{name} is {said!r}, expected a positive whole number of millions")
    return int(said) * 10**6


def is_file(path: Path) -> bool:
    """Whether a plain file is there; what is no file is not taken for an absent one.

    Raises:
        OSError: something else stands there: a folder, a pipe, a device, a link that leads nowhere.
    """
    if not os.path.lexists(path):
        return False
    check_plain(path)
    return True


def check_plain(path: Path) -> None:
    """Refuse what is no plain file, before a library opens it: pipes and devices may never end.

    Raises:
        OSError: it is absent, or a folder, a pipe or a device.
    """
    _check_plain(os.stat(path), path)


def _check_plain(facts: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(errno.EINVAL, "is not a plain file but a folder, a pipe or a device", str(path))


def open_plain(path: Path, buffering: int = -1) -> BinaryIO:
    """Open a plain file of any size, for who reads parts of it.

    Args:
        path: the file.
        buffering: as for `open`.

    Raises:
        OSError: it is absent or cannot be read, or is no plain file.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check_plain(os.fstat(handle), path)
        return open(handle, "rb", buffering=buffering)
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: Path, of: tuple[str, int] = MOST_BYTES) -> bytes:
    """All bytes of a plain file.

    Args:
        path: the file.
        of: which limit holds.

    Raises:
        OSError: it is absent or cannot be read, or is no plain file.
        ValueError: it is larger than the limit.
    """
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit(of):
            raise ValueError(
                f"has {size / 1e6:.0f} MB, more than {limit(of) // 10**6} MB; set {of[0]} to read it all the same"
            )
        return file.read()


def read_text(path: Path) -> str:
    """A text in UTF-8, with or without a byte-order mark; see `read_bytes`.

    Raises:
        ValueError: it is another encoding.
    """
    return read_bytes(path, MOST_TEXT).decode("utf-8-sig")


def read_json(path: Path) -> Any:
    """The content of a JSON file; see `read_text` and `parse_json`."""
    return parse_json(read_text(path))


def json_or(path: Path, error: type[Exception], remedy: str) -> Any:
    """`read_json`, where whatever is wrong is one error with one remedy.

    Raises:
        Exception: of the class ``error``.
    """
    try:
        return read_json(path)
    except (OSError, ValueError) as cause:
        raise error(f"{path} cannot be read ({cause}); {remedy}") from cause


def parse_json(text: str | bytes) -> Any:
    """The content of a JSON text, whose objects say everything once.

    Raises:
        ValueError: it is no JSON, is nested absurdly deep, or says something twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("is nested too deep to be read") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"says '{twice[:60]}' twice in one object")
    return found


class _Loader(yaml.SafeLoader):
    """YAML without what makes a small file large: every node counts, aliases count as what they stand for."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """One node; an alias is not followed where its target holds others (what bombs are made of)."""
        self.nodes += 1
        depth = len(self.states)
        if self.nodes > MOST_YAML_NODES or depth > 4 * MOST_YAML_DEPTH:
            raise yaml.YAMLError("it has too many entries, or is nested too deep")
        event = self.peek_event()
        node = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent) and not isinstance(node, yaml.ScalarNode):
            self.nodes += _size(node, MOST_YAML_NODES)
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """A mapping that says every key once."""
        seen: set[Any] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.YAMLError(f"the key '{key.value[:60]}' stands twice (line {key.start_mark.line + 1})")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _size(node: Any, most: int) -> int:
    """How many nodes an alias stands for, counted as often as they would be read; at most so many."""
    waiting, count = [node], 0
    while waiting and count <= most:
        each = waiting.pop()
        count += 1
        if isinstance(each, yaml.SequenceNode):
            waiting += each.value
        elif isinstance(each, yaml.MappingNode):
            waiting += [part for pair in each.value for part in pair]
    return count


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; see `read_text` and `parse_yaml`."""
    return parse_yaml(read_text(path))


def parse_yaml(text: str) -> Any:
    """The content of a YAML text of plain values.

    Raises:
        ValueError: it is no YAML, too large (also by aliases that repeat each other), too deep, or says a key twice.
    """
    if len(text) > MOST_YAML_BYTES:
        raise ValueError(f"has {len(text)} characters, more than {MOST_YAML_BYTES}")
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        said = " ".join(str(error).split()) if isinstance(error, yaml.YAMLError) else "it is nested too deep"
        raise ValueError(said) from error


def check_archive(data: bytes | Path) -> None:
    """Refuse a zip archive (.npz, .pth) whose members unpack to more than the limit.

    Raises:
        ValueError: they do, or it is no archive.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data) if isinstance(data, bytes) else data) as archive:
            total = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"is no zip archive ({error})") from error
    if total > limit(MOST_BYTES):
        raise ValueError(
            f"unpacks to {total / 1e6:.0f} MB, more than {limit(MOST_BYTES) // 10**6} MB; set {MOST_BYTES[0]} to read "
            "it all the same"
        )


def check_pixels(width: int, height: int) -> None:
    """Refuse an image that would take gigabytes once it is decoded.

    Raises:
        ValueError: it has more pixels than the limit.
    """
    if width * height > limit(MOST_PIXELS):
        raise ValueError(
            f"has {width}x{height} pixels, more than {limit(MOST_PIXELS) // 10**6} megapixels; set {MOST_PIXELS[0]} to "
            "read it all the same"
        )


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open a zip archive whose parts are read one by one; who reads a part bounds it.

    Raises:
        OSError: it is absent or no plain file.
        zipfile.BadZipFile: it is no archive.
    """
    check_plain(path)
    return zipfile.ZipFile(path)


def map_array(path: Path) -> "np.ndarray":
    """A NumPy array that stays on disk until it is looked at; pickled objects in it are refused.

    Raises:
        OSError: it is absent or no plain file.
        ValueError: it is damaged, or no single array.
    """
    import numpy as np

    check_plain(path)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except EOFError as error:
        raise ValueError("is empty or ends early") from error
    if not isinstance(array, np.ndarray):
        raise ValueError("holds an archive, expected one array")
    return array


def open_image(path: Path) -> "Image.Image":
    """An image of which only the header is read; the caller closes it.

    Raises:
        OSError: it is absent, no plain file, or no image.
        ValueError: it has more pixels than the limit.
    """
    from PIL import Image

    check_plain(path)
    image = Image.open(path)
    try:
        check_pixels(*image.size)
    except ValueError:
        image.close()
        raise
    return image


def open_tensors(path: Path) -> Any:
    """A file of safetensors, as ``safe_open`` gives it.

    Raises:
        OSError: it is absent or no plain file.
        ValueError: it is damaged or something else.
    """
    from safetensors import SafetensorError, safe_open

    check_plain(path)
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def read_tensors(path: Path) -> dict[str, Any]:
    """All tensors of a file of safetensors; see `open_tensors`."""
    from safetensors import SafetensorError

    with open_tensors(path) as file:
        try:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(str(error)) from error


def read_torch(path: Path) -> Any:
    """The content of a file of torch.save: tensors and plain values only, on the CPU, mapped where the form allows it.

    Raises:
        OSError: it is absent or no plain file.
        Exception: whatever torch's unpickler says of something else; nothing of it was run.
    """
    import torch

    check_plain(path)  # files of before PyTorch 1.6 are no zip archives and cannot be mapped: they are read whole
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
