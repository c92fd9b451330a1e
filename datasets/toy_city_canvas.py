"""A pinhole camera, the light of the day and a canvas that paints colours and segments at once.

World coordinates are metres: x to the right, y up from the road, z ahead of the camera.
Colours are RGB triples from 0 to 255.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

Colour = tuple[float, float, float]

# Everything is painted at twice the final size: averaging down gives the colours smooth edges,
# while the segments are picked from every other pixel and so stay exact.
SUPERSAMPLE = 2
SUBPIXEL_BITS = 3
NEAREST_DEPTH = 0.8
UNLABELLED = 0


@dataclass(frozen=True)
class Camera:
    """Looks along +z; `focal` and the vanishing point `(cx, cy)` are in canvas pixels."""

    focal: float
    cx: float
    cy: float
    x: float
    height: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """Map (..., 3) world points in metres to (..., 2) canvas pixels."""
        scale = self.focal / np.maximum(points[..., 2], NEAREST_DEPTH)
        pixels = np.empty((*points.shape[:-1], 2))
        pixels[..., 0] = self.cx + (points[..., 0] - self.x) * scale
        pixels[..., 1] = self.cy + (self.height - points[..., 1]) * scale
        return pixels


@dataclass(frozen=True)
class Light:
    """What the time of day and the weather do to colours.

    `sun` is the unit vector towards the sun, `shadow` the share of light its shadows take,
    `lit` the chance that a lamp or a window shines.
    """

    tint: Colour
    haze: Colour
    haze_distance: float
    sky_top: Colour
    sky_low: Colour
    sun: tuple[float, float, float]
    shadow: float
    lit: float

    def colour(self, albedo: Colour, depth: float, shade: float, glow: bool) -> Colour:
        """Colour of a surface `depth` metres away; one that glows needs no light."""
        clear = math.exp(-depth / self.haze_distance)
        r, g, b = albedo
        if not glow:
            tint = self.tint
            r, g, b = r * tint[0] * shade, g * tint[1] * shade, b * tint[2] * shade
        haze = self.haze
        r, g, b = ((r - haze[0]) * clear + haze[0], (g - haze[1]) * clear + haze[1],
                   (b - haze[2]) * clear + haze[2])  # fmt: skip
        return min(r, 255.0), min(g, 255.0), min(b, 255.0)

    def shades(self, normals: np.ndarray) -> np.ndarray:
        """Brightness factors (N,) of surfaces with unit normals (N, 3)."""
        direct = np.clip(normals @ np.array(self.sun), 0.0, None)
        return 0.72 + 0.14 * normals[:, 1] + 0.65 * self.shadow * direct


class Canvas:
    """Holds the picture and, per pixel, the number of the segment that was painted last.

    `image` is (S*H, S*W, 3) uint8 RGB and `segments` (S*H, S*W) int16 with S = `SUPERSAMPLE`.
    Segment n has the Cityscapes id `labels[n]` and, if it is an object that COCO knows, the
    COCO category id `categories[n]`, otherwise 0. `drawn_areas[n]` says how many final pixels
    the object covered before anything was painted over it.
    """

    def __init__(self, size: tuple[int, int], camera: Camera, light: Light) -> None:
        height, width = size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE
        self.camera = camera
        self.light = light
        self.image = np.zeros((height, width, 3), np.uint8)
        self.segments = np.zeros((height, width), np.int16)
        self.labels = [UNLABELLED]
        self.categories = [0]
        self.drawn_areas: dict[int, int] = {}
        self._stuff: dict[int, int] = {}

    def stuff(self, label: int) -> int:
        """The one segment that all amorphous regions of a label share."""
        if label not in self._stuff:
            self._stuff[label] = self.thing(label, 0)
        return self._stuff[label]

    def thing(self, label: int, category: int) -> int:
        """A new segment of its own."""
        self.labels.append(label)
        self.categories.append(category)
        return len(self.labels) - 1

    def finish(self, segment: int) -> None:
        """Note how much of an object there is to see, before nearer ones hide it."""
        step = SUPERSAMPLE
        seen = np.count_nonzero(self.segments[::step, ::step] == segment)
        self.drawn_areas[segment] = int(seen)

    def polygons(
        self,
        points: np.ndarray,
        colour: Colour | None,
        segment: int,
        shade: float = 1.0,
        glow: bool = False,
        depth: float | None = None,
    ) -> None:
        """Fill K polygons that do not overlap, as (K, N, 3) world points.

        Without a colour only the segment is claimed, as for the air between the spokes of a
        wheel, which an annotator gives to the bicycle. `depth` metres of haze veil the colour,
        by default as many as the polygons are away.
        """
        if len(points) == 0:
            return
        corners = list(_fixed_point(self.camera.project(points)))
        if colour is not None:
            depth = _mean_depth(points) if depth is None else depth
            seen = self.light.colour(colour, depth, shade, glow)
            cv2.fillPoly(self.image, corners, seen, cv2.LINE_8, SUBPIXEL_BITS)
        cv2.fillPoly(self.segments, corners, segment, cv2.LINE_8, SUBPIXEL_BITS)

    def polygon(
        self,
        points: np.ndarray,
        colour: Colour | None,
        segment: int,
        shade: float = 1.0,
        glow: bool = False,
    ) -> None:
        """Fill one polygon of (N, 3) world points."""
        self.polygons(points[None], colour, segment, shade, glow)

    def stroke(
        self,
        points: np.ndarray,
        width: float,
        colour: Colour,
        segment: int,
        shade: float = 1.0,
        glow: bool = False,
        closed: bool = False,
    ) -> None:
        """Draw a line through (N, 3) world points, `width` metres thick."""
        depth = _mean_depth(points)
        thickness = max(1, round(width * self.camera.focal / max(depth, NEAREST_DEPTH)))
        line = [_fixed_point(self.camera.project(points))]
        seen = self.light.colour(colour, depth, shade, glow)
        for target, value in ((self.image, seen), (self.segments, segment)):
            cv2.polylines(target, line, closed, value, thickness, cv2.LINE_8, SUBPIXEL_BITS)

    def balls(
        self,
        centres: np.ndarray,
        radii: np.ndarray,
        colours: list[Colour],
        segment: int,
        glow: bool = False,
    ) -> None:
        """Draw balls as discs in the given order: (N, 3) centres and (N,) radii in metres."""
        pixels = self.camera.project(centres)
        scales = self.camera.focal / np.maximum(centres[:, 2], NEAREST_DEPTH)
        corners = _fixed_point(pixels).tolist()
        sizes = np.round(np.maximum(radii * scales, 0.6) * 2**SUBPIXEL_BITS).astype(int).tolist()
        depth = _mean_depth(centres)
        for corner, size, colour in zip(corners, sizes, colours, strict=True):
            seen = self.light.colour(colour, depth, 1.0, glow)
            cv2.circle(self.image, corner, size, seen, -1, cv2.LINE_8, SUBPIXEL_BITS)
            cv2.circle(self.segments, corner, size, segment, -1, cv2.LINE_8, SUBPIXEL_BITS)

    def ground(self, points: np.ndarray, colour: Colour, segment: int, shade: float = 1.0) -> None:
        """Fill (N, 3) or (K, N, 3) outlines on the ground; `veil_ground` adds the haze later."""
        points = points[None] if points.ndim == 2 else points
        self.polygons(points, colour, segment, shade, depth=0.0)

    def veil_ground(self) -> None:
        """Let the ground fade into the haze row by row, as it reaches from near to far."""
        first = max(0, math.ceil(self.camera.cy))
        rows = np.arange(first, len(self.image)) + 0.5
        depths = self.camera.focal * self.camera.height / np.maximum(rows - self.camera.cy, 0.5)
        clear = np.exp(-depths / self.light.haze_distance).astype(np.float32)[:, None, None]
        haze = np.array(self.light.haze, np.float32)
        # Near rows are all but clear, and most of the picture: leave them be.
        last = first + int(np.count_nonzero(clear < 0.97))
        clear = clear[: last - first]
        ground = self.image[first:last] * clear
        ground += haze * (1.0 - clear) + 0.5
        self.image[first:last] = ground

    def darken(self, footprints: list[np.ndarray], strength: float, softness: float) -> None:
        """Cast the (N, 3) ground outlines as shadows whose edges are `softness` pixels wide."""
        if not footprints or strength <= 0:
            return
        # A quarter of the size is plenty for soft edges and makes the blur cheap.
        shadow = np.zeros((self.image.shape[0] // 4, self.image.shape[1] // 4), np.uint8)
        for outline in footprints:
            hull = cv2.convexHull(_fixed_point(self.camera.project(outline) / 4))
            cv2.fillConvexPoly(shadow, hull, 255, cv2.LINE_AA, SUBPIXEL_BITS)
        shadow = cv2.GaussianBlur(shadow, (0, 0), softness)
        shadow = cv2.resize(shadow, self.image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        kept = cv2.LUT(shadow, np.round(255 - np.arange(256) * strength).astype(np.uint8))
        cv2.multiply(self.image, cv2.merge([kept] * 3), self.image, 1 / 255)


def _fixed_point(pixels: np.ndarray) -> np.ndarray:
    return np.rint(pixels * 2**SUBPIXEL_BITS).astype(np.int32)


def _mean_depth(points: np.ndarray) -> float:
    depths = points[..., 2]
    return float(np.add.reduce(depths, axis=None)) / depths.size


def pick(rng: np.random.Generator, options: list[Colour]) -> Colour:
    """One of the colours, a little lighter or darker than it says."""
    chosen = options[int(rng.integers(len(options)))]
    factor = rng.uniform(0.85, 1.15)
    return tuple(c * factor for c in chosen)


def mixed(a: Colour, b: Colour, share: float) -> Colour:
    """`a` with `share` of it replaced by `b`."""
    return tuple(p + (q - p) * share for p, q in zip(a, b, strict=True))


@dataclass(frozen=True)
class Placement:
    """Where an object stands, metres, and where it heads: yaw 0 drives away from the camera."""

    x: float
    z: float
    yaw: float = 0.0

    def __call__(self, points: np.ndarray | list) -> np.ndarray:
        """Map (..., 3) local points to world points."""
        p = np.asarray(points, float)
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        world = np.empty(p.shape)
        world[..., 0] = self.x + cos * p[..., 0] + sin * p[..., 2]
        world[..., 1] = p[..., 1]
        world[..., 2] = self.z - sin * p[..., 0] + cos * p[..., 2]
        return world

    def upright(self, points: np.ndarray | list) -> np.ndarray:
        """Map (..., 2) points (along, up) of the vertical plane through the heading."""
        p = np.asarray(points, float)
        world = np.empty((*p.shape[:-1], 3))
        world[..., 0] = self.x + math.sin(self.yaw) * p[..., 0]
        world[..., 1] = p[..., 1]
        world[..., 2] = self.z + math.cos(self.yaw) * p[..., 0]
        return world

    def facing(self, points: np.ndarray | list) -> np.ndarray:
        """Map (..., 2) points (sideways, up) of the vertical plane that faces the camera."""
        p = np.asarray(points, float)
        world = np.empty((*p.shape[:-1], 3))
        world[..., 0] = self.x + p[..., 0]
        world[..., 1] = p[..., 1]
        world[..., 2] = self.z
        return world
