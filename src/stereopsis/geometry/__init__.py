"""Pure functions on cameras, points, meshes, boxes and views from above; metres, OpenCV camera axes.

Numpy and scipy suffice, but for casting rays at triangles (Embree, the extra ``rooms``).
"""

from stereopsis.geometry.birdseye import (
    BirdsEyeView,
    ceiling_height,
    fill_small_holes,
    pixel_of,
    splat_birdseye,
    world_of,
)
from stereopsis.geometry.birdseye_mesh import raycast_birdseye
from stereopsis.geometry.boxes import (
    box_corners,
    box_edges,
    box_from_points,
    box_volume,
    check_boxes,
    intersection_volume,
    iou,
)
from stereopsis.geometry.camera import (
    Intrinsics,
    PointMap,
    Projection,
    Rays,
    camera_rays,
    check_pose,
    invert_pose,
    project,
    ray_slopes,
    transform,
    unproject,
)
from stereopsis.geometry.coverage import CoverageOrder, depth_voxels, greedy_coverage
from stereopsis.geometry.gravity import Alignment, estimate_alignment, up_from_cameras
from stereopsis.geometry.mesh import TriangleMesh, join_meshes
from stereopsis.geometry.normals import NormalMap, estimate_cloud_normals, estimate_normals
from stereopsis.geometry.patches import PatchCoordinates, depth_patch_coordinates, discretise, patch_coordinates
from stereopsis.geometry.voxels import (
    VoxelGroups,
    voxel_groups,
    voxel_indices,
    voxel_keys,
    voxels_of_keys,
)

__all__ = [
    "Alignment",
    "BirdsEyeView",
    "CoverageOrder",
    "Intrinsics",
    "NormalMap",
    "PatchCoordinates",
    "PointMap",
    "Projection",
    "Rays",
    "TriangleMesh",
    "VoxelGroups",
    "box_corners",
    "box_edges",
    "box_from_points",
    "box_volume",
    "camera_rays",
    "ceiling_height",
    "check_boxes",
    "check_pose",
    "depth_patch_coordinates",
    "depth_voxels",
    "discretise",
    "estimate_alignment",
    "estimate_cloud_normals",
    "estimate_normals",
    "fill_small_holes",
    "greedy_coverage",
    "intersection_volume",
    "invert_pose",
    "iou",
    "join_meshes",
    "patch_coordinates",
    "pixel_of",
    "project",
    "ray_slopes",
    "raycast_birdseye",
    "splat_birdseye",
    "transform",
    "unproject",
    "up_from_cameras",
    "voxel_groups",
    "voxel_indices",
    "voxel_keys",
    "voxels_of_keys",
    "world_of",
]
