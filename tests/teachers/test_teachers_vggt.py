"""VGGT through its public interface, played by a small package on disk; and the features its users have extracted."""

import dataclasses
import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from PIL import Image

from stereopsis.errors import CacheError, CheckpointError, RecipeError, SceneError
from stereopsis.teachers.feature_teachers import load_feature_teacher
from stereopsis.teachers.features import TeacherViews
from stereopsis.teachers.patch_grid import pooled
from stereopsis.teachers.vggt import VggtTeacher
from stereopsis.teachers.vggt_archive import VggtArchiveTeacher, vggt_rows

FAKE = '''
import torch
from torch import nn


class Aggregator(nn.Module):
    """Five special tokens, then one token per 14 x 14 patch: its mean colours, and the mean over all views."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.seen = []

    def forward(self, images):
        batch, views, _, height, width = images.shape
        self.seen.append((tuple(images.shape), images.min().item(), images.max().item()))
        own = torch.nn.functional.avg_pool2d(images.flatten(0, 1), 14).flatten(2).transpose(1, 2)
        own = own.unflatten(0, (batch, views))
        joint = own.mean(dim=(1, 2, 3), keepdim=True).expand(*own.shape[:3], 1)
        tokens = torch.cat([own, joint], dim=-1) * self.scale
        special = torch.full((batch, views, 5, 4), 1e6)
        return [torch.cat([special, tokens * block], dim=2) for block in (0.0, 1.0)], 5


class VGGT(nn.Module):
    def __init__(self):
        super().__init__()
        self.aggregator = Aggregator()

    @classmethod
    def from_pretrained(cls, source):
        if source != "someone/weights":
            raise OSError(f"no {source}")
        return cls()
'''


def write_fake(folder):
    package = folder / "vggt" / "models"
    package.mkdir(parents=True)
    (folder / "vggt" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "vggt.py").write_text(FAKE)
    return folder


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout of the fake VGGT; whatever gets imported from it is forgotten afterwards."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "vggt"]:
        monkeypatch.delitem(sys.modules, name)
    before = list(sys.path)
    yield write_fake(tmp_path / "checkout")
    assert sys.path == before
    for name in [name for name in sys.modules if name.partition(".")[0] == "vggt"]:
        del sys.modules[name]


def views_of(images, *, fx=None, names=None, cells=(14, 14), scene="scene0000_00"):
    number, _, height, width = images.shape
    K = torch.tensor([[fx or 100.0, 0, width / 2], [0, 100.0, height / 2], [0, 0, 1]])
    return TeacherViews(
        images=images,
        points=torch.zeros(number, height, width, 3),
        points_valid=torch.zeros(number, height, width, dtype=torch.bool),
        T_aligned_camera=torch.eye(4).expand(number, 4, 4),
        rows=cells[0],
        cols=cells[1],
        names=names or tuple(f"{i:05d}" for i in range(number)),
        scene_id=scene,
        intrinsics=K.expand(number, 3, 3),
    )


def pictures(number, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (number, 3, height, width), generator=generator, dtype=torch.uint8)


def weights(folder, scale=1.0):
    path = folder / "model.pt"
    torch.save({"aggregator.scale": torch.full((4,), scale)}, path)
    return path


# ---------------------------------------------------------------------------------------------------- the network


def test_last_block_without_special_tokens_pooled_to_the_cells(checkout, tmp_path):
    teacher = load_feature_teacher(f"vggt:{checkout}:{weights(tmp_path, 2.0)}")
    assert teacher.channels == 4
    views = views_of(pictures(2, 392, 518))
    result = teacher.encode(views)
    assert result.valid.all()
    own = torch.nn.functional.avg_pool2d(views.images.float() / 255, 14) * 2
    expected = torch.nn.functional.adaptive_avg_pool2d(own, (14, 14)).permute(0, 2, 3, 1)
    torch.testing.assert_close(result.features[..., :3], expected)
    torch.testing.assert_close(result.features[..., 3], (own.mean() / 1).expand(2, 14, 14))
    shape, low, high = teacher.module.aggregator.seen[-1]
    assert shape == (1, 2, 3, 392, 518)
    assert low >= 0.0
    assert high <= 1.0


def test_views_are_seen_jointly(checkout, tmp_path):
    teacher = load_feature_teacher(f"vggt:{checkout}:{weights(tmp_path)}")
    images = pictures(3, 28, 28)
    base = teacher.encode(views_of(images, cells=(2, 2))).features
    changed = images.clone()
    changed[2] = 255
    moved = teacher.encode(views_of(changed, cells=(2, 2))).features
    torch.testing.assert_close(moved[:2, ..., :3], base[:2, ..., :3])
    assert (moved[:2, ..., 3] - base[:2, ..., 3]).abs().min() > 0.01


@pytest.mark.parametrize(
    ("size", "fx", "expected"),
    [
        ((384, 384), 100.0, (518, 518)),  # a centre crop
        ((384, 384), 75.0, (392, 518)),  # 4:3 squeezed into a square ("squash") and stretched back
        ((968, 1296), 100.0, (392, 518)),  # ScanNet's own frames: 3DRS's 28 x 37 patches
        ((480, 360), 100.0, (518, 392)),  # upright: nothing is cropped
    ],
)
def test_input_size_is_vggts_own(checkout, tmp_path, size, fx, expected):
    teacher = load_feature_teacher(f"vggt:{checkout}:{weights(tmp_path)}")
    views = views_of(pictures(1, *size), fx=fx)
    teacher.encode(views)
    assert teacher.module.aggregator.seen[-1][0] == (1, 1, 3, *expected)


def test_resizing_is_vggts_own(checkout, tmp_path):
    """Pillow's bicubic on 8-bit pixels, then / 255."""
    teacher = load_feature_teacher(f"vggt:{checkout}:{weights(tmp_path)}")
    images = pictures(1, 120, 160)
    sized = Image.fromarray(images[0].permute(1, 2, 0).numpy()).resize((518, 392), Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.array(sized)).permute(2, 0, 1)[None].float() / 255
    patches = teacher.patches(views_of(images))
    own = torch.nn.functional.avg_pool2d(expected, 14).permute(0, 2, 3, 1)
    torch.testing.assert_close(patches[..., :3], own)


def test_weights_come_from_pt_safetensors_or_an_id(checkout, tmp_path):
    from safetensors.torch import save_file

    save_file({"aggregator.scale": torch.full((4,), 3.0)}, tmp_path / "model.safetensors")
    one = load_feature_teacher(f"vggt:{checkout}:{weights(tmp_path, 3.0)}")
    other = load_feature_teacher(f"vggt:{checkout}:{tmp_path}/model.safetensors")
    third = load_feature_teacher(f"vggt:{checkout}:someone/weights")
    assert one.fingerprint == other.fingerprint != third.fingerprint
    with pytest.raises(CheckpointError, match=r"cannot load VGGT's weights 'facebook/VGGT-1B'.*model\.safetensors'"):
        load_feature_teacher(f"vggt:{checkout}")


def test_weights_are_never_executed(checkout, tmp_path):
    import pickle

    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    (tmp_path / "model.pt").write_bytes(pickle.dumps({"aggregator.scale": Trap()}))
    with pytest.raises(CheckpointError, match="does not hold VGGT's weights"):
        load_feature_teacher(f"vggt:{checkout}:{tmp_path}/model.pt")
    torch.save({"other": torch.zeros(4), "trap": Trap()}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="does not hold VGGT's weights"):
        load_feature_teacher(f"vggt:{checkout}:{tmp_path}/model.pt")
    assert not (tmp_path / "sprung").exists()
    torch.save({"other": torch.zeros(4)}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"aggregator\.scale"):
        load_feature_teacher(f"vggt:{checkout}:{tmp_path}/model.pt")
    with pytest.raises(CheckpointError, match=r"gone\.pt' does not exist"):
        load_feature_teacher(f"vggt:{checkout}:{tmp_path}/gone.pt")


def test_two_checkouts_in_one_process_are_refused(checkout, tmp_path):
    path = weights(tmp_path)
    load_feature_teacher(f"vggt:{checkout}:{path}")
    other = write_fake(tmp_path / "other")
    with pytest.raises(RecipeError, match="another VGGT has been imported already, from"):
        load_feature_teacher(f"vggt:{other}:{path}")


def test_an_installed_package_is_found_and_its_absence_explained(checkout, tmp_path):
    if "vggt" not in sys.modules:
        with pytest.raises(RecipeError, match=r"cannot import vggt\.models\.vggt.*licence forbids.*clone https"):
            load_feature_teacher("vggt:vggt:someone/weights")
    script = "from stereopsis.teachers import load_feature_teacher as f; print(f('vggt:vggt:someone/weights').channels)"
    path = f"{checkout}:{':'.join(sys.path)}"
    done = subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.stdout.strip() == "4", done.stderr


def test_folders_without_vggt_are_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"holds no vggt/models/vggt\.py"):
        load_feature_teacher(f"vggt:{tmp_path}:someone/weights")
    with pytest.raises(RecipeError, match="cannot import VGGT: there is no folder '/nowhere'"):
        load_feature_teacher("vggt:/nowhere:someone/weights")
    with pytest.raises(CheckpointError, match="no VGGT weights 'three/part/name'"):
        load_feature_teacher(f"vggt:{write_fake(tmp_path / 'x')}:three/part/name")


def test_tokens_that_do_not_fit_the_grid_are_refused(checkout, tmp_path):
    teacher = load_feature_teacher(f"vggt:{checkout}:{weights(tmp_path)}")
    assert isinstance(teacher, VggtTeacher)
    whole = teacher.module.aggregator.forward
    teacher.module.aggregator.forward = lambda images: (whole(images)[0], 4)
    with pytest.raises(RecipeError, match="gave 1037 patch tokens for 28 x 37 patches"):
        teacher.encode(views_of(pictures(1, 96, 128)))


# ------------------------------------------------------------------------------------------ features on disk


@pytest.fixture
def released(tmp_path):
    """3DRS's layout: 100 frames, features of 8 of them as float32 [1, 8, 5 + 28 * 37, 6]."""
    posed = tmp_path / "posed_images" / "scene0000_00"
    posed.mkdir(parents=True)
    for number in range(100):
        (posed / f"{10 * number:05d}.jpg").write_bytes(b"")
    folder = tmp_path / "posed_images_3d_feature_vggt"
    (folder / "scene0000_00").mkdir(parents=True)
    feature = np.random.default_rng(0).standard_normal((1, 8, 5 + 28 * 37, 6)).astype(np.float32)
    np.savez_compressed(folder / "scene0000_00" / "vggt.npz", feature=feature, ps_idx=np.array(5))
    return folder, feature


def squashed(names, cells=(14, 14), **changes):
    """Square views of whole 4:3 frames."""
    views = views_of(torch.zeros(len(names), 3, 40, 40, dtype=torch.uint8), fx=75.0, names=tuple(names), cells=cells)
    return dataclasses.replace(views, **changes)


OFFICIAL = [f"{10 * int(index):05d}" for index in np.linspace(0, 99, 8)]


def test_archives_go_by_the_official_frames(released):
    folder, feature = released
    teacher = load_feature_teacher(f"vggt_npz:{folder}")
    assert teacher.channels == 6
    result = teacher.encode(squashed(OFFICIAL))
    grid = torch.from_numpy(feature[0, :, 5:]).reshape(8, 28, 37, 6)
    torch.testing.assert_close(result.features, pooled(grid, 14, 14))
    assert result.valid.all()


def test_archives_are_matched_by_name_not_by_place(released):
    teacher = VggtArchiveTeacher(released[0])
    whole = teacher.encode(squashed(OFFICIAL)).features
    chosen = [5, 0, 5, 2]
    some = teacher.encode(squashed([OFFICIAL[index] for index in chosen])).features
    assert torch.equal(some, whole[chosen])


def test_a_frame_that_the_archive_lacks_is_refused(released):
    teacher = VggtArchiveTeacher(released[0])
    with pytest.raises(CacheError, match=r"no features of frame '00010' \(1 of 2 frames are missing; it is of 00000"):
        teacher.encode(squashed([OFFICIAL[0], "00010"]))


def test_names_beside_the_archive_win(released):
    folder, feature = released
    names = [f"{100 + index:05d}" for index in range(8)]
    sidecar = folder / "scene0000_00" / "names.json"
    sidecar.write_text(json.dumps(names))
    teacher = VggtArchiveTeacher(folder, images="/nowhere")
    cells = teacher.encode(squashed(names[3:4], cells=(28, 37))).features
    assert torch.equal(cells[0].flatten(0, 1), torch.from_numpy(feature[0, 3, 5:]))
    sidecar.write_text(json.dumps(names[:-1]))
    with pytest.raises(CacheError, match=r"lists 7 frames but .* holds 8 views"):
        teacher.encode(squashed(names[:1]))
    sidecar.write_text('{"a": 1}')
    with pytest.raises(CacheError, match="should be a JSON list"):
        teacher.encode(squashed(names[:1]))


def test_archives_of_unknown_frames_are_refused(released):
    with pytest.raises(CacheError, match=r"does not say which frames it is of.*names\.json"):
        VggtArchiveTeacher(released[0], images="/nowhere")


def test_cropped_views_are_refused(released):
    teacher = VggtArchiveTeacher(released[0])
    square = squashed(OFFICIAL)
    K = square.intrinsics.clone()
    K[:, 0, 0] = 100.0  # square pixels: a centre crop of the frame
    with pytest.raises(CacheError, match=r"28 x 37 patches, but the student's views .* aspect 1\.00, that is 37 x 37"):
        teacher.encode(dataclasses.replace(square, intrinsics=K))
    with pytest.raises(CacheError, match="the views have no intrinsics"):
        teacher.encode(dataclasses.replace(square, intrinsics=None))


def test_scenes_without_features_and_damaged_archives(released):
    folder, _ = released
    teacher = VggtArchiveTeacher(folder)
    with pytest.raises(CacheError, match=r"scene0001_00/vggt\.npz' does not exist; extract"):
        teacher.encode(squashed(OFFICIAL, scene_id="scene0001_00"))
    with pytest.raises(CacheError, match="does not exist"):
        teacher.encode(squashed(OFFICIAL, scene_id="../posed_images_3d_feature_vggt/scene0000_00"))
    path = folder / "scene0000_00" / "vggt.npz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SceneError, match="cannot be read"):
        teacher.encode(squashed(OFFICIAL))
    with pytest.raises(CacheError, match=r"holds no SCENE/vggt\.npz"):
        VggtArchiveTeacher(folder / "scene0000_00")


def test_archive_fingerprint_follows_the_content(released):
    folder, feature = released
    base = VggtArchiveTeacher(folder).fingerprint
    assert VggtArchiveTeacher(folder).fingerprint == base
    (folder / "scene0000_00" / "names.json").write_text(json.dumps(OFFICIAL))
    named = VggtArchiveTeacher(folder).fingerprint
    feature[0, 0, 0, 0] += 1
    np.savez_compressed(folder / "scene0000_00" / "vggt.npz", feature=feature, ps_idx=np.array(5))
    assert len({base, named, VggtArchiveTeacher(folder).fingerprint}) == 3


def test_memory_stays_flat_while_an_archive_is_read(tmp_path):
    """Views of 8 MB each, 16 of them: reading all needs a few views' room, not the archive's 128 MB."""
    folder = tmp_path / "features"
    (folder / "scene0000_00").mkdir(parents=True)
    feature = np.zeros((1, 16, 5 + 28 * 37, 2048), dtype=np.float32)
    np.savez_compressed(folder / "scene0000_00" / "vggt.npz", feature=feature, ps_idx=np.array(5))
    del feature
    names = [f"{index:05d}" for index in range(16)]
    (folder / "scene0000_00" / "names.json").write_text(json.dumps(names))
    script = textwrap.dedent(
        f"""
        import resource, torch
        from stereopsis.teachers import TeacherViews
        from stereopsis.teachers.vggt_archive import VggtArchiveTeacher
        names = {names!r}
        views = lambda n: TeacherViews(
            images=torch.zeros(n, 3, 8, 8, dtype=torch.uint8), points=torch.zeros(n, 8, 8, 3),
            points_valid=torch.zeros(n, 8, 8, dtype=torch.bool), T_aligned_camera=torch.eye(4).expand(n, 4, 4),
            rows=4, cols=4, names=tuple(names[:n]), scene_id="scene0000_00",
            intrinsics=torch.tensor([[0.75, 0, 4], [0, 1, 4], [0, 0, 1]]).expand(n, 3, 3))
        teacher = VggtArchiveTeacher({str(folder)!r})
        teacher.encode(views(1))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        teacher.encode(views(16))
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
        """
    )
    env = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 30


@pytest.mark.parametrize(("aspect", "rows"), [(4 / 3, 28), (1296 / 968, 28), (1.0, 37), (16 / 9, 21), (0.5, 37)])
def test_vggt_rows(aspect, rows):
    assert vggt_rows(aspect) == rows
