"""A data folder of Video-3D-LLM with two tiny scenes, in the published layout and wording."""

import json
import pickle
from pathlib import Path

import numpy as np
import torch
from PIL import Image

A = "scene0000_00"  # of the training split: true boxes are the proposals
B = "scene0011_00"  # of the validation split: boxes of a detector
NAMES = ("00000", "00010", "00020", "00030", "00040", "00050")
LOST = "00030"  # tracking was lost here: the pose is -inf, and EmbodiedScan leaves the frame out
LISTED = tuple(name for name in NAMES if name != LOST)
HEIGHT = 2.0  # of the cameras, which look straight down onto the floor
COLOUR_K = np.array([[30.0, 0, 16, 0], [0, 30.0, 12, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
DEPTH_K = np.array([[15.0, 0, 8, 0], [0, 15.5, 6, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
BOXES_A = [[0.0, 0.0, 0.4, 1.0, 0.5, 0.8], [1.0, 1.0, 0.5, 0.4, 0.4, 1.0], [-1.0, 0.5, 0.2, 0.2, 0.2, 0.4]]
BOXES_B = {0: [0.5, 0.5, 0.4, 1.0, 1.0, 0.8], 2: [2.0, 0.0, 0.3, 0.2, 0.4, 0.6], 5: [0.0, -1.0, 1.0, 0.5, 0.5, 2.0]}
PROPOSALS_B = [[0.52, 0.5, 0.4, 1.0, 1.1, 0.8], [3.0, 3.0, 0.3, 0.2, 0.2, 0.2]]


def alignment(degrees: float = 30.0) -> np.ndarray:
    angle = np.radians(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = 1.0, -2.0, 0.05
    return matrix


def pose(index: int) -> np.ndarray:
    """Camera to unaligned world; in the aligned frame it is at (0.1 index, 0, 2) and looks down."""
    aligned = np.diag([1.0, -1.0, -1.0, 1.0])
    aligned[:3, 3] = 0.1 * index, 0.0, HEIGHT
    return np.linalg.inv(alignment()) @ aligned


def save_matrix(path: Path, matrix: np.ndarray) -> None:
    np.savetxt(path, matrix, fmt="%f")


def write_pickle(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, 4))


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def record(scene: str) -> dict:
    """EmbodiedScan's entry of a scene."""
    folder = f"scannet/posed_images/{scene}"
    images = [
        {
            "img_path": f"{folder}/{name}.jpg",
            "depth_path": f"{folder}/{name}.png",
            "cam2global": pose(NAMES.index(name)),
            "visible_instance_ids": [0, 1],
        }
        for name in LISTED
    ]
    return {
        "sample_idx": f"scannet/{scene}",
        "axis_align_matrix": alignment(),
        "cam2img": COLOUR_K,
        "depth_cam2img": DEPTH_K,
        "images": images,
        "instances": [{"bbox_3d": [0.0] * 9, "bbox_label_3d": 3, "bbox_id": 0}],
    }


def infos(*scenes: str) -> dict:
    other = {"sample_idx": "3rscan/0ad2d3a3", "axis_align_matrix": np.eye(4), "images": [{"cam2img": np.eye(4)}]}
    return {"metainfo": {"categories": {"chair": 0}}, "data_list": [other, *map(record, scenes)]}


def sample(identity: object, scene: str, asked: str, answer: str, dataset: str, kind: str, **more: object) -> dict:
    metadata = {"dataset": dataset, "question_type": kind, **more.pop("metadata", {})}
    turns = [{"value": asked, "from": "human"}, {"value": answer, "from": "gpt"}]
    return {"id": identity, "video": f"scannet/{scene}", "conversations": turns, "metadata": metadata, **more}


def processed() -> dict[str, list[dict]]:
    """One file for each benchmark; the wording is that of the preprocessing scripts."""
    find = "<image>Identify the object according to the following description.\n"
    some = "\nThere may be no corresponding object, or there may be one or more objects."
    describe = "<image> Given an object located at <coord> , describe the object in detail."
    single = "Answer the question using a single word or phrase."
    a_chair = {"ann_id": "4", "object_id": "1"}
    return {
        "sqa3d_train": [
            sample(220602000002, A, f"<image> {place} What is in front of me? {single}", "piano", "sqa3d", "what")
            for place in ("I put my bag down.", "I stood up. It is late.", "I am standing by the ottoman.")
        ],
        "scanqa_val": [
            sample(
                "scanqa_val-scene0011-0_0",
                B,
                "<image> What color is the chair? Answer the question simply.",
                "dark brown",
                "scanQA",
                "unknow",
                metadata={"answers": ["dark brown", "brown"]},
            )
        ],
        "scan2cap_train": [
            sample(
                0, A, describe, "A black chair.", "scan2cap", "multiple",
                box_input=BOXES_A[1], gt_box=BOXES_A[1], metadata=a_chair,
            )
        ],
        "scan2cap_val": [
            sample(
                3, B, describe, "A chair.", "scan2cap", "unique",
                box_input=PROPOSALS_B[0], gt_box=BOXES_B[0], annotations=["a chair.", "the only chair."],
                metadata={"ann_id": "0", "object_id": "0"},
            ),
            sample(
                7, B, describe, "A lamp.", "scan2cap", "unique",
                box_input=None, gt_box=BOXES_B[2], annotations=["a lamp."],
                metadata={"ann_id": "1", "object_id": "2"},
            ),
        ],
        "scanrefer_vg_train": [
            sample(
                17, A, f"{find}The chair is black. it is to the right.", "<ground>", "scanrefer", "multiple",
                box=BOXES_A[1], metadata=a_chair,
            )
        ],
        "multi3drefer_val": [
            sample(
                0, B, f"{find}Both lamps.{some}", "<ground>", "multi3drefer", "mt",
                box=[BOXES_B[2], BOXES_B[5]], metadata={"ann_id": 0, "object_id": [2, 5]},
            ),
            sample(
                1, B, f"{find}A pink cow.{some}", "<ground>", "multi3drefer", "zt_w_d",
                box=[], metadata={"ann_id": 1, "object_id": []},
            ),
        ],
    }  # fmt: skip


def write_frames(folder: Path) -> None:
    folder.mkdir(parents=True)
    save_matrix(folder / "intrinsic.txt", COLOUR_K)
    save_matrix(folder / "depth_intrinsic.txt", DEPTH_K)
    for index, name in enumerate(NAMES):
        Image.fromarray(np.full((24, 32, 3), 40 * index, np.uint8)).save(folder / f"{name}.jpg", quality=95)
        Image.fromarray(np.full((12, 16), 1000 * HEIGHT, np.uint16)).save(folder / f"{name}.png")
        matrix = np.full((4, 4), -np.inf) if name == LOST else pose(index)
        save_matrix(folder / f"{name}.txt", matrix)


def corners(box: list[float]) -> np.ndarray:
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    return np.array(box[:3]) + signs * np.array(box[3:]) / 2


def write_data_folder(data: Path) -> None:
    scannet = data / "scannet"
    for scene in (A, B):
        write_frames(scannet / "posed_images" / scene)
    write_pickle(data / "embodiedscan" / "embodiedscan_infos_train.pkl", infos(A))
    write_pickle(data / "embodiedscan" / "embodiedscan_infos_val.pkl", infos(B))
    write_pickle(data / "embodiedscan" / "embodiedscan_infos_test.pkl", infos())
    write_json(data / "metadata" / "scannet_train_gt_box.json", {f"scannet/{A}": BOXES_A})
    write_json(data / "metadata" / "scannet_val_pred_box.json", {f"scannet/{B}": PROPOSALS_B})
    files = [f"data/scannet/posed_images/{A}/{name}.jpg" for name in ("00040", "00000", "00020")]
    chosen = {"video_id": f"scannet/{A}", "frame_files": files, "voxel_nums": [50, 30, 15]}
    write_json(
        data / "metadata" / "scannet_select_frames.json", [{**chosen, "num_all_voxels": 100, "num_select_voxels": 95}]
    )
    for name, samples in processed().items():
        folder = "scanrefer" if name.startswith("scanrefer") else "."  # Ross3D has folders here, Video-3D-LLM none
        write_json(data / "processed" / folder / f"{name}_llava_style.json", samples)
    cloud = scannet / "pcd_with_object_aabbs" / "val"
    cloud.mkdir(parents=True)
    content = {"xyz": np.zeros((4, 3), np.float32), "rgb": np.zeros((4, 3), np.uint8), "sem_labels": None}
    ids = np.array(list(BOXES_B), np.int16)
    boxes = np.array([corners(box) for box in BOXES_B.values()], np.float32)
    torch.save({**content, "aabb_obj_ids": ids, "aabb_corner_xyz": boxes}, cloud / f"{B}.pth")
    scans = scannet / "scans" / B
    scans.mkdir(parents=True)
    write_json(scans / f"{B}.aggregation.json", {"segGroups": [{"objectId": 0, "label": "chair", "segments": [1]}]})
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(scans / "view_0.jpg", quality=95)
    features = scannet / "posed_images_3d_feature_vggt" / A
    features.mkdir(parents=True)
    values = np.random.default_rng(0).normal(size=(1, 4, 5 + 28 * 37, 2)).astype(np.float32)
    np.savez_compressed(features / "vggt.npz", feature=values, ps_idx=5)
