"""The providers by name, as ``--geometry`` takes them: NAME, or CAMERAS+DEPTH."""

from collections.abc import Callable, Mapping

from stereopsis.errors import SceneError, did_you_mean
from stereopsis.providers.colmap import Colmap
from stereopsis.providers.combination import Combination
from stereopsis.providers.depth_anything_3 import DepthAnything3
from stereopsis.providers.map_anything import MapAnything
from stereopsis.providers.moge import Moge
from stereopsis.providers.pi3 import Pi3
from stereopsis.providers.plane_sweep import PlaneSweep
from stereopsis.providers.provider import GeometryProvider
from stereopsis.providers.rooms_geometry import RoomsGeometry
from stereopsis.providers.vggt import Vggt

PROVIDERS: Mapping[str, Callable[[], GeometryProvider]] = {
    each.name: each for each in (Colmap, PlaneSweep, RoomsGeometry, DepthAnything3, MapAnything, Vggt, Pi3, Moge)
}


def make_provider(spec: str) -> GeometryProvider:
    """The provider of that name; cameras without depth of their own get it by plane sweeping.

    Args:
        spec: NAME, or CAMERAS+DEPTH.

    Raises:
        SceneError: no such provider, or two that do not go together.
    """
    names = spec.split("+")
    if len(names) > 2:
        raise SceneError(f"--geometry {spec}: expected one name, or two as CAMERAS+DEPTH, e.g. colmap+plane_sweep")
    for name in names:
        if name not in PROVIDERS:
            raise SceneError(
                f"--geometry {spec}: there is no geometry provider '{name}'{did_you_mean(name, PROVIDERS)}"
            )
    cameras = PROVIDERS[names[0]]()
    if len(names) == 2:
        return Combination(cameras=cameras, depths=PROVIDERS[names[1]]())
    if not cameras.gives_poses:
        raise SceneError(f"--geometry {spec}: it estimates depth but no cameras; combine it, e.g. colmap+{spec}")
    return cameras if cameras.gives_depth else Combination(cameras=cameras, depths=PlaneSweep())
