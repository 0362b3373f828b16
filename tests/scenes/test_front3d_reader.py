"""A small house in the published layout, by hand: two rooms, five models, and everything that can be wrong."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from stereopsis.errors import SceneError
from stereopsis.geometry.camera import check_pose, unproject
from stereopsis.scenes import open_scene, verify_scene
from stereopsis.scenes.alignment import with_mesh_birdseye
from stereopsis.scenes.formats import detect_format
from stereopsis.scenes.prepare import find_captures
from stereopsis.scenes.readers.front3d import (
    Front3DConfig,
    front3d_instances,
    front3d_mesh,
    front3d_rooms,
    read_front3d,
)
from stereopsis.scenes.readers.front3d.floor import rectangles
from stereopsis.scenes.readers.front3d.models import category_colour

pytest.importorskip("embreex")

SMALL = Front3DConfig(views=3, width=32, height=24)
LIVING, BEDROOM = "LivingRoom-101", "Bedroom-102"
_CUBE = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
_SIDES = ["013", "032", "467", "475", "045", "051", "237", "276", "026", "064", "157", "173"]


def obj_box(low, high) -> str:
    """A box as an OBJ file."""
    corners = [tuple(a + (b - a) * t for a, b, t in zip(low, high, corner, strict=True)) for corner in _CUBE]
    lines = [f"v {x} {y} {z}" for x, y, z in corners]
    return "\n".join([*lines, *("f " + " ".join(str(int(i) + 1) for i in side) for side in _SIDES)]) + "\n"


TEXTURED = """mtllib model.mtl
v 0 0 0
v 1 0 0
v 1 1 0
v 0 1 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl paint
f 1/1 2/2 3/3
f 1/1 3/3 4/4
"""


def plate(uid, kind, x0, x1, z0, z1, y, **changes):
    """A horizontal rectangle of a house's mesh list (y up)."""
    xyz = [x0, y, z0, x1, y, z0, x1, y, z1, x0, y, z1]
    record = {"uid": uid, "type": kind, "xyz": xyz, "normal": [0, 1, 0] * 4, "uv": [0, 0] * 4}
    return {**record, "faces": [0, 1, 2, 0, 2, 3], "material": "m0", **changes}


def wall(uid, x0, z0, x1, z1, top=2.6):
    xyz = [x0, 0, z0, x1, 0, z1, x1, top, z1, x0, top, z0]
    return {"uid": uid, "type": "WallInner", "xyz": xyz, "faces": [0, 1, 2, 0, 2, 3], "material": "none"}


def child(ref, instance, pos=(0, 0, 0), rot=(0, 0, 0, 1), scale=(1, 1, 1)):
    return {"ref": ref, "instanceid": instance, "pos": list(pos), "rot": list(rot), "scale": list(scale)}


def quarter(turns: float) -> list[float]:
    """Quaternion x y z w of a turn about the y axis by quarter turns."""
    return Rotation.from_euler("y", 90 * turns, degrees=True).as_quat().tolist()


# The living room: x 0..5, z 0..4, floor at y = 0.1. In the world (x, -z, y - 0.1) it covers y -4..0.
HOUSE = {
    "uid": "house-1",
    "furniture": [
        {
            "uid": "f-sofa",
            "jid": "sofa-model",
            "title": "sofa/three-seat sofa",
            "category": "Three-seat Sofa",
            "valid": True,
        },
        {"uid": "f-lamp", "jid": "lamp-model", "title": "lighting/pendant lamp", "valid": True},
        {"uid": "f-table", "jid": "table-model", "title": "table/coffee table"},
        {"uid": "f-gone", "jid": "not-published", "title": "chair/armchair", "valid": True},
        {"uid": "f-void", "jid": "sofa-model", "title": "sofa", "valid": False},
    ],
    "mesh": [
        plate("floor1", "Floor", 0, 5, 0, 4, 0.1),
        plate("ceiling1", "Ceiling", 0, 5, 0, 4, 2.7, material="none"),
        wall("w1", 0, 0, 5, 0, 2.7),
        wall("w2", 5, 0, 5, 4, 2.7),
        wall("w3", 5, 4, 0, 4, 2.7),
        wall("w4", 0, 4, 0, 0, 2.7),
        plate("floor2", "Floor", 6, 9, 0, 2, 0.1),
        plate("floor3", "Floor", 6, 7, 2, 4, 0.1),
    ],
    "material": [{"uid": "m0", "color": [120, 80, 40, 255]}, {"uid": "m1", "color": None}],
    "scene": {
        "room": [
            {
                "type": "LivingRoom",
                "instanceid": LIVING,
                "children": [
                    *(child(ref, f"mesh/{ref}") for ref in ("floor1", "ceiling1", "w1", "w2", "w3", "w4")),
                    # 2 x 0.8 x 0.9 m (x, y, z), doubled in x, turned by a quarter turn: its x side looks along -z.
                    child("f-sofa", "furniture/1", (1.0, 0.1, 3.0), quarter(1), (1.5, 1, 1)),
                    child("f-lamp", "furniture/2", (2.5, 2.3, 2.0)),
                    child("f-table", "furniture/3", (3.0, 0.1, 2.0), quarter(0.5)),
                    child("f-gone", "furniture/4", (4, 0.1, 3)),
                    child("f-void", "furniture/5", (4, 0.1, 3)),
                    child("nowhere", "furniture/6"),
                ],
            },
            # An L: 3 x 2 m and 1 x 2 m.
            {
                "type": "Bedroom",
                "instanceid": BEDROOM,
                "children": [child("floor2", "mesh/f2"), child("floor3", "mesh/f3")],
            },
        ]
    },
}


def write_house(folder: Path, house) -> Path:
    """The house and its models, laid out as published."""
    models = folder / "3D-FUTURE-model"
    for name, content in {
        "sofa-model": obj_box((-1, 0, -0.45), (1, 0.8, 0.45)),
        "lamp-model": obj_box((-0.2, -0.2, -0.2), (0.2, 0.2, 0.2)),
        "table-model": obj_box((-0.5, 0, -0.5), (0.5, 0.45, 0.5)),
        "picture-model": TEXTURED,
        "broken-model": "v 0 0 0\nv 1 0 0\nf 1 2 9\n",
        "empty-model": "# nothing\n",
        "binary-model": "\x00\x01\x02 v f f f",
        "nan-model": "v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
    }.items():
        (models / name).mkdir(parents=True)
        (models / name / "raw_model.obj").write_text(content)
    (models / "painted-model").mkdir()
    (models / "painted-model" / "raw_model.obj").write_text(
        TEXTURED.replace("vt", "# vt").replace("1/1 2/2 3/3", "1 2 3").replace("1/1 3/3 4/4", "1 3 4")
    )
    (models / "painted-model" / "model.mtl").write_text("newmtl paint\nKd 0.2 0.4 0.6\n")
    (models / "picture-model" / "model.mtl").write_text("newmtl paint\nmap_Kd ./texture.png\n")
    pixels = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 0]]], np.uint8)
    Image.fromarray(pixels).save(models / "picture-model" / "texture.png")
    (folder / "3D-FRONT").mkdir()
    file = folder / "3D-FRONT" / "house-1.json"
    file.write_text(json.dumps(house) if isinstance(house, dict) else house)
    return file


@pytest.fixture
def make_house(tmp_path) -> Callable[..., Path]:
    """A function that writes the house, changed by another one."""

    def make(change: Callable[[dict], object] = lambda house: None) -> Path:
        house = copy.deepcopy(HOUSE)
        change(house)
        return write_house(tmp_path / "data", house)

    return make


def children(house):
    return house["scene"]["room"][0]["children"]


def test_boxes_by_hand(make_house):
    scene = read_front3d(make_house(), room=LIVING, config=SMALL)
    assert scene.id == f"house-1_{LIVING}"
    sofa, lamp, table = scene.objects
    assert [item.label for item in scene.objects] == ["three-seat sofa", "pendant lamp", "coffee table"]
    assert [item.id for item in scene.objects] == [1, 2, 3]
    # The sofa: scaled to 3 x 0.8 x 0.9 about its own origin, turned so that its long side lies along z = world y.
    np.testing.assert_allclose(sofa.box, [1.0, -3.0, 0.4, 0.9, 3.0, 0.8], atol=1e-9)
    np.testing.assert_allclose(lamp.box, [2.5, -2.0, 2.2, 0.4, 0.4, 0.4], atol=1e-9)
    diagonal = np.sqrt(2)  # a square table, turned by 45 degrees
    np.testing.assert_allclose(table.box, [3.0, -2.0, 0.225, diagonal, diagonal, 0.45], atol=1e-9)
    assert sofa.attributes == {"instance": "furniture/1", "model": "sofa-model", "title": "sofa/three-seat sofa"}
    facts = scene.provenance
    assert facts["left_out_counts"] == {"missing model": 1, "not valid": 1, "dangling reference": 1}
    assert "not-published" in facts["left_out"]["furniture/4"]
    assert "'nowhere'" in facts["left_out"]["furniture/6"]
    assert (facts["format"], facts["room_type"], facts["floor_height"]) == ("front3d", "LivingRoom", 0.1)
    np.testing.assert_array_equal(scene.T_aligned_world, np.eye(4))


def test_a_rotation_is_a_rotation_and_not_a_mirror(make_house):
    """A general quaternion and three different scales, against scipy; the corner order must survive."""
    turn = Rotation.from_euler("xyz", [20, 50, -35], degrees=True)
    scale, place = np.array([1.5, 0.5, 2.0]), np.array([1.0, 0.3, 2.0])

    def change(house):
        children(house)[6].update(rot=turn.as_quat().tolist(), scale=scale.tolist(), pos=place.tolist())

    scene = read_front3d(make_house(change), room=LIVING, config=SMALL)
    low, high = np.array([-1, 0, -0.45]), np.array([1, 0.8, 0.45])
    corners = turn.apply((low + np.array(_CUBE) * (high - low)) * scale) + place
    world = np.stack([corners[:, 0], -corners[:, 2], corners[:, 1] - 0.1], axis=1)
    box = scene.objects[0].box
    np.testing.assert_allclose(box[:3] - box[3:] / 2, world.min(axis=0), atol=1e-9)
    np.testing.assert_allclose(box[:3] + box[3:] / 2, world.max(axis=0), atol=1e-9)
    mesh = front3d_mesh(scene)
    mine = mesh.triangles[mesh.labels == 1]
    volume = np.einsum("ij,ij->i", mine[:, 0], np.cross(mine[:, 1], mine[:, 2])).sum() / 6
    assert abs(volume) == pytest.approx(2 * 0.8 * 0.9 * 1.5)
    original = np.array([[low + np.array(_CUBE[int(i)]) * (high - low) for i in side] for side in _SIDES])
    before = np.einsum("ij,ij->i", original[:, 0], np.cross(original[:, 1], original[:, 2])).sum() / 6
    assert np.sign(volume) == np.sign(before)


def test_views_show_the_room_exactly(make_house):
    scene = read_front3d(make_house(), room=LIVING, config=Front3DConfig(views=6, width=64, height=48))
    assert len(verify_scene(scene).frames) == 6
    labels = front3d_instances(scene)
    for index, frame in enumerate(scene.frames):
        check_pose(frame.T_world_camera)
        assert frame.colour().dtype == np.uint8
        assert frame.depth().dtype == np.float32
        cloud = unproject(frame.depth().astype(np.float64), frame.intrinsics, frame.T_world_camera)
        assert cloud.valid.all()  # the room is closed
        structure = cloud.points[labels[index] == 0]
        off = np.abs(structure[:, None] - np.array([[0, -4, 0], [5, 0, 2.6]])[None]).reshape(-1, 6).min(axis=1)
        assert off.max() < 1e-4  # on floor, ceiling or one of the walls
        for item in scene.objects:
            mine = cloud.points[labels[index] == item.id]
            assert item.visible_pixels[index] == len(mine)
            assert (np.abs(mine - item.box[:3]) <= item.box[3:] / 2 + 1e-4).all()
        place = frame.T_world_camera[:3, 3]
        assert 0 < place[0] < 5
        assert -4 < place[1] < 0
        assert 1.2 < place[2] < 1.8
    assert sum(max(item.visible_pixels) > 20 for item in scene.objects) >= 2
    assert len({frame.colour().tobytes() for frame in scene.frames}) == 6


def test_the_same_house_gives_the_same_bytes_also_in_another_process(make_house):
    file = make_house()
    first, again = (read_front3d(file, room=LIVING, config=SMALL) for _ in range(2))
    other = read_front3d(file, room=LIVING, config=Front3DConfig(views=3, width=32, height=24, seed=1))
    sent = pickle.loads(pickle.dumps(first))
    for a, b, c, d in zip(first.frames, again.frames, sent.frames, other.frames, strict=True):
        assert a.colour().tobytes() == b.colour().tobytes() == c.colour().tobytes()
        assert a.depth().tobytes() == b.depth().tobytes() == c.depth().tobytes()
        assert a.T_world_camera.tobytes() != d.T_world_camera.tobytes()
    first.frames[0].colour()[:] = 0  # what a caller does to its pixels is its own affair
    assert first.frames[0].colour().any()
    assert len(pickle.dumps(first.frames[0].load_colour)) < 2000


def test_without_visibility_counts_stay_empty(make_house):
    config = Front3DConfig(views=2, width=32, height=24, visibility=False)
    assert [o.visible_pixels for o in read_front3d(make_house(), room=LIVING, config=config).objects] == [()] * 3


def test_rooms_are_listed_and_opened_by_name_or_mark(make_house):
    file = make_house()
    assert front3d_rooms(file) == (LIVING, BEDROOM)
    assert front3d_rooms(file.parent) == (LIVING, BEDROOM)
    with pytest.raises(SceneError, match=f"has 2 rooms and none was named.*{LIVING}, {BEDROOM}"):
        read_front3d(file)
    with pytest.raises(SceneError, match=rf"no room 'Bedroom-12' \(did you mean '{BEDROOM}'\?\)"):
        read_front3d(file, room="Bedroom-12")
    marked = Path(f"{file}#{BEDROOM}")
    assert [detect_format(path) for path in (file, file.parent, marked)] == ["front3d"] * 3
    assert open_scene(marked).provenance["room"] == BEDROOM
    with pytest.raises(SceneError, match=r"open '.*house-1.json#ROOM'"):
        open_scene(file)
    (file.parent / "house-2.json").write_text(file.read_text())
    with pytest.raises(SceneError, match=r"holds 2 houses.*open one of them, for instance .*house-1.json"):
        read_front3d(file.parent)


def test_one_room_needs_no_name_and_equal_names_are_told_apart(make_house):
    def change(house):
        house["scene"]["room"][0]["instanceid"] = BEDROOM

    file = make_house(change)
    assert front3d_rooms(file) == (BEDROOM, f"{BEDROOM}~2")
    house = copy.deepcopy(HOUSE)
    del house["scene"]["room"][0]
    alone = file.with_name("alone.json")
    alone.write_text(json.dumps(house))
    assert read_front3d(alone, config=SMALL).provenance["room"] == BEDROOM


def test_the_camera_stays_on_an_l_shaped_floor(make_house):
    scene = read_front3d(make_house(), room=BEDROOM, config=Front3DConfig(views=12, width=16, height=12))
    assert scene.objects == ()
    for x, y in [frame.T_world_camera[:2, 3] for frame in scene.frames]:
        assert 6 < x < 9
        assert -4 < y < 0
        assert not (x > 7 and y < -2), "outside the L"
    depth = scene.frames[0].depth()
    assert (depth == 0).any()  # no walls: rays meet nothing
    assert not scene.frames[0].colour()[depth == 0].any()
    assert (front3d_instances(scene)[0][depth == 0] == -1).all()


def test_rectangles_cover_a_mask_exactly():
    mask = np.random.default_rng(0).random((9, 7)) < 0.5
    covered = np.zeros((9, 7), int)
    for x0, y0, x1, y1 in rectangles(mask).astype(int):
        covered[y0:y1, x0:x1] += 1
    np.testing.assert_array_equal(covered, mask)
    assert rectangles(np.ones((3, 4), bool)).tolist() == [[0, 0, 4, 3]]
    assert rectangles(np.zeros((3, 4), bool)).shape == (0, 4)


def test_categories_come_from_model_info_first(make_house):
    file = make_house()
    facts = [
        {"model_id": "sofa-model", "super-category": "Sofa", "category": "L-shaped Sofa", "style": "Modern"},
        {"model_id": "lamp-model", "super-category": "Lighting", "category": None, "theme": None},
    ]
    (file.parents[1] / "3D-FUTURE-model" / "model_info.json").write_text(json.dumps(facts))
    scene = read_front3d(file, room=LIVING, config=SMALL)
    assert [item.label for item in scene.objects] == ["l-shaped sofa", "pendant lamp", "coffee table"]
    assert scene.objects[0].attributes["style"] == "Modern"
    assert "theme" not in scene.objects[1].attributes


def test_a_damaged_model_info_is_refused(make_house):
    file = make_house()
    (file.parents[1] / "3D-FUTURE-model" / "model_info.json").write_text('[{"id": 1}]')
    with pytest.raises(SceneError, match=r"model_info.json: cannot be read as a list of model records"):
        read_front3d(file, room=LIVING, config=SMALL)


def test_colours_of_texture_material_and_category(make_house):
    def change(house):
        house["furniture"][0]["jid"] = "picture-model"
        house["furniture"][1]["jid"] = "painted-model"

    scene = read_front3d(make_house(change), room=LIVING, config=SMALL)
    mesh = front3d_mesh(scene)
    picture = np.flatnonzero(mesh.labels == 1)
    low_left = np.array([[0.7, 0.2, 0.1]], np.float32)  # of triangle (0,0) (1,0) (1,1): u = 0.3, v = 0.1
    seen = {tuple(mesh.colours_at(picture[[i]], low_left)[0].tolist()) for i in (0, 1)}
    assert (0, 0, 250) in seen  # the image's lower left pixel
    assert (mesh.colours[mesh.labels == 2] == [51, 102, 153]).all()
    table = np.flatnonzero(mesh.labels == 3)
    assert tuple(mesh.colours[table[0], 0].tolist()) == category_colour("coffee table")
    floor = np.flatnonzero((mesh.labels == 0) & (np.abs(mesh.triangles[..., 2]) < 1e-9).all(axis=1))
    assert (mesh.colours[floor] == [120, 80, 40]).all()


def test_seen_from_above(make_house):
    scene = read_front3d(make_house(), room=LIVING, config=SMALL)
    view = with_mesh_birdseye(scene, front3d_mesh(scene), size=416).birdseye
    assert view.metres_per_pixel * 416 == pytest.approx(5.2, abs=0.02)  # the longer side and the margin
    assert np.nanmax(view.height) == pytest.approx(2.4)  # the lamp; the ceiling is cut
    # The lamp hides of the table: x from 2.293, where its corner lies, to 2.7, at most 0.2 to either side.
    hidden = 2 * (0.2**2 / 2 + (2.7 - (3 - np.sqrt(0.5)) - 0.2) * 0.2)
    for item, area in zip(scene.objects, [0.9 * 3.0, 0.4**2, 1.0 - hidden], strict=True):
        assert (view.labels == item.id).sum() * view.metres_per_pixel**2 == pytest.approx(area, rel=0.05)


def test_meshes_without_triangles_are_counted(make_house):
    scene = read_front3d(make_house(lambda house: house["mesh"][2].update(xyz=[], faces=[])), room=LIVING, config=SMALL)
    assert scene.provenance["left_out_counts"]["empty mesh"] == 1
    assert scene.provenance["left_out"]["mesh/w1"] == "empty mesh: mesh 'w1' has no triangles"


def _set(index, key, value):
    return lambda house: children(house)[index].__setitem__(key, value)


def _jid(value):
    return lambda house: house["furniture"][0].__setitem__("jid", value)


def _mesh(index, key, value):
    return lambda house: house["mesh"][index].__setitem__(key, value)


def _twice(house):
    house["furniture"].append({**house["furniture"][0], "jid": "table-model"})


# What is done to the house, the instance that it hits, and what the message must say.
DAMAGE = {
    "NaN pos": (_set(6, "pos", [1.0, float("nan"), 0.0]), "furniture/1", "pos is .*expected 3 finite numbers"),
    "inf pos": (_set(6, "pos", [1.0, float("inf"), 0.0]), "furniture/1", "pos is .*expected 3 finite numbers"),
    "short pos": (_set(6, "pos", [1.0, 2.0]), "furniture/1", "pos is .*expected 3 finite numbers"),
    "pos in words": (_set(6, "pos", ["a", "b", "c"]), "furniture/1", "pos is .*expected 3 numbers"),
    "no pos": (lambda house: children(house)[6].pop("pos"), "furniture/1", "pos is None, expected 3"),
    "zero quaternion": (_set(6, "rot", [0, 0, 0, 0]), "furniture/1", "zero quaternion"),
    "NaN quaternion": (_set(6, "rot", [0, float("nan"), 0, 1]), "furniture/1", "rot is .*expected 4 finite"),
    "zero scale": (_set(6, "scale", [1, 0, 1]), "furniture/1", "scale .* has a zero"),
    "no record": (lambda house: children(house).__setitem__(6, "sofa"), "child-6", "the entry is a str"),
    "broken OBJ": (_jid("broken-model"), "furniture/1", "broken-model.*cannot be read as an OBJ model"),
    "empty OBJ": (_jid("empty-model"), "furniture/1", "empty-model.*cannot be read as an OBJ model"),
    "binary OBJ": (_jid("binary-model"), "furniture/1", "binary-model.*cannot be read as an OBJ model"),
    "NaN OBJ": (_jid("nan-model"), "furniture/1", "nan-model.*NaN"),
    "path traversal": (_jid("../../secret"), "furniture/1", "'../../secret' is not a plain name"),
    "absolute path": (_jid("/etc"), "furniture/1", "'/etc' is not a plain name"),
    "no model id": (_jid(None), "furniture/1", "model id None is not a plain name"),
    "duplicate uid": (_twice, "furniture/1", "uid 'f-sofa' is used for 2 different things"),
    "face index": (_mesh(2, "faces", [0, 1, 4]), "mesh/w1", "'w1' is unusable: faces name vertices 0 to 4"),
    "negative index": (_mesh(2, "faces", [0, 1, -1]), "mesh/w1", "faces name vertices -1"),
    "broken index": (_mesh(2, "faces", [0, 1, 1.5]), "mesh/w1", "faces are not whole numbers"),
    "ragged faces": (_mesh(2, "faces", [0, 1, 2, 3]), "mesh/w1", "expected flat lists of triples"),
    "no faces": (_mesh(2, "faces", None), "mesh/w1", "'w1' is unusable"),
    "NaN mesh": (_mesh(2, "xyz", [float("nan")] * 12), "mesh/w1", "NaN or inf"),
    "mesh in words": (_mesh(2, "xyz", ["x"] * 12), "mesh/w1", "'w1' is unusable"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_stops_or_is_left_out_and_counted(make_house, damage):
    change, instance, message = DAMAGE[damage]
    file = make_house(change)
    with pytest.raises(SceneError, match=message) as error:
        read_front3d(file, room=LIVING, config=SMALL)
    for part in (str(file), LIVING, f"'{instance}'", "on_bad_frame='skip'"):
        assert part in str(error.value)
    config = Front3DConfig(views=1, width=8, height=8)
    scene = read_front3d(file, room=LIVING, config=config, on_bad_frame="skip")
    assert scene.provenance["left_out_counts"]["damaged"] == 1
    assert scene.provenance["left_out"][instance].startswith("damaged: ")
    assert len(scene.objects) == (3 if instance.startswith("mesh") else 2)
    with pytest.raises(SceneError, match=r"1 of 12 things are damaged, more than the tolerated 5%"):
        read_front3d(file, room=LIVING, config=config, on_bad_frame="skip", max_bad_fraction=0.05)


def test_the_same_thing_listed_twice_does_no_harm(make_house):
    file = make_house(lambda house: house["furniture"].append(dict(house["furniture"][0])))
    assert len(read_front3d(file, room=LIVING, config=SMALL).objects) == 3


WRONG_FILES = {
    "truncated": (json.dumps(HOUSE)[:-200], "cannot be read as JSON"),
    "binary": ("\x00\x01", "cannot be read as JSON"),
    "a list": ("[]", "holds a list; expected a 3D-FRONT house"),
    "no furniture": (json.dumps({**HOUSE, "furniture": None}), "'furniture' is nothing, expected a list"),
    "mesh of numbers": (json.dumps({**HOUSE, "mesh": [1]}), "'mesh' is a list with other things"),
    "no scene": (json.dumps({**HOUSE, "scene": None}), "'scene.room' is nothing"),
    "no rooms": (json.dumps({**HOUSE, "scene": {"room": []}}), "the house has no rooms"),
    "no children": (
        json.dumps({**HOUSE, "scene": {"room": [{"instanceid": LIVING, "children": 3}]}}),
        "'children' is a int",
    ),
}


@pytest.mark.parametrize("fault", WRONG_FILES)
def test_files_that_are_no_houses(tmp_path, fault):
    content, message = WRONG_FILES[fault]
    file = write_house(tmp_path, content)
    with pytest.raises(SceneError, match=message) as error:
        read_front3d(file, room=LIVING)
    assert str(file) in str(error.value)


def test_models_must_be_somewhere(make_house, tmp_path):
    file = make_house()
    (file.parents[1] / "3D-FUTURE-model").rename(tmp_path / "elsewhere")
    with pytest.raises(SceneError, match=r"none of its 4 furniture models was found \(no folder.*models=\.\.\."):
        read_front3d(file, room=LIVING, config=SMALL)
    assert len(read_front3d(file, room=LIVING, models=tmp_path / "elsewhere", config=SMALL).objects) == 3
    with pytest.raises(SceneError, match="nowhere: no such folder; expected the 3D-FUTURE models"):
        read_front3d(file, room=LIVING, models=tmp_path / "nowhere")
    with pytest.raises(SceneError, match="no such house file"):
        read_front3d(tmp_path / "no.json")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SceneError, match="holds no house; expected a 3D-FRONT house"):
        read_front3d(empty)
    bare = make_bare(tmp_path)
    with pytest.raises(SceneError, match="nothing in it can be shown"):
        read_front3d(bare, room=LIVING)


def make_bare(folder: Path) -> Path:
    house = copy.deepcopy(HOUSE)
    house["scene"]["room"][0]["children"] = []
    file = folder / "bare.json"
    file.write_text(json.dumps(house))
    return file


def test_a_floor_too_small_to_stand_on(make_house):
    def change(house):
        house["mesh"][0] = plate("floor1", "Floor", 0, 0.25, 0, 0.25, 0.1)

    with pytest.raises(SceneError, match=r"a floor of 0\.25 x 0\.25 m leaves no place for a camera"):
        read_front3d(make_house(change), room=LIVING, config=SMALL)


@pytest.mark.parametrize("setting", ["views", "width", "height", "horizontal_fov_degrees"])
def test_settings_out_of_range(setting):
    with pytest.raises(SceneError, match=f"Front3DConfig.{setting} is 0"):
        Front3DConfig(**{setting: 0 if setting != "horizontal_fov_degrees" else 0.0})


def test_another_scene_has_no_mesh(make_scene):
    with pytest.raises(SceneError, match="was not opened from a 3D-FRONT house"):
        front3d_mesh(make_scene())


def test_every_room_of_every_house_is_a_scene_of_its_own_when_prepared(make_house):
    house = make_house()
    rooms = [f"{house.name}#{room}" for room in front3d_rooms(house)]
    assert len(rooms) > 1
    assert [c.path.name for c in find_captures(house)] == rooms
    assert [c.path.name for c in find_captures(house.parent)] == rooms
    assert [c.path.name for c in find_captures(house.parent, format="front3d")] == rooms
    assert [c.path.name for c in find_captures(house.with_name(rooms[1]))] == [rooms[1]]
    (house.parent / "broken.json").write_text('{"furniture" "mesh" "scene" "room"')
    assert [c.path.name for c in find_captures(house.parent)] == ["broken.json", *rooms]
