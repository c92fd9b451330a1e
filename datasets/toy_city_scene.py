"""How a street scene of the embedded data set is drawn, and what stands where in it.

World coordinates are metres: x along the street to the right, y up from the road, z across the
street, away from the camera, which stands on the near pavement at x = z = 0.
"""

import functools
import math
import re

import cv2
import numpy as np

SUPERSAMPLE = 2  # averaged down, colours get smooth edges, while picked labels stay exact
_SUBPIXEL_BITS = 4
_NEAR_KERB, _FAR_KERB, _FRONT = 5.0, 11.4, 13.6  # z; houses and gardens from _FRONT on

# Sprites, the largest first. In the heads of objects: length, height, and z from where to where one
# may stand, in metres. Then shapes, painted one over the other, x metres ahead and y up:
#   = LABEL [CATEGORY]          what follows has this Cityscapes id, and is an object with COCO's id
#   poly COLOUR x y ...         box COLOUR left low right high [columns step [rows step]]
#   limb COLOUR width x y ...   disc[SIDES] COLOUR x y radius ...   ring COLOUR x y radius inner ...
#   body[PANES[-HIDDEN]] COLOUR depth x y ...   a solid with this near side, anticlockwise; digits
#                               name the edges behind which there is glass, or nothing to be seen
# COLOUR*FACTOR is lighter or darker; "none" changes the label only, as an annotator gives the air
# between spokes to the bicycle. Every sprite picks one of a colour's shades.
_SPRITES = """
train 8.4 3.6 9.2 9.6: = 31 7; limb dark .1 -1.5 3.2 -1.1 3.5 -1.5 3.8 -1.1 3.8 -1.9 3.8;
  body24 white 2.3 -4.1 .2 4.1 .2 4.2 1.3 3.6 3.2 -3.6 3.2 -4.2 1.3; box stripe -4.15 .9 4.15 1.4;
  box dark*1.6 -4.1 .2 4.1 .5; box glass*.6 -3.3 1.65 -2.35 2.7 6 1.12;
  box stripe -2.2 .5 -1.25 2.8 2 3.35; box glass -2.08 1.2 -1.37 2.6 2 3.35
bus 6.6 3 9 9.6: = 28 6; body1 bus 2.3 -3.3 .35 3.3 .35 3.3 3 -3.3 3; box bus*.6 -3.3 .35 3.3 .62;
  box glass -3.05 1.45 -2.17 2.45 5 1.02; box glass*.7 2.2 .5 2.57 2.5 2 .43;
  disc dark -2 .48 .48 1.55 .48 .48; disc grey*1.4 -2 .48 .24 1.55 .48 .24
truck 6.1 3.1 9 9.6: = 27 8; box dark -3 .5 3 .9; body load 2.2 -3 .85 1.1 .85 1.1 3.1 -3 3.1;
  box load*.85 -2.6 .9 -2.52 3.05 7 .6; disc paint -.95 2 .55;
  body2-4 paint 2.1 1.1 .5 3 .5 3.05 1.4 2.7 2.5 1.1 2.5;
  poly glass 1.75 1.45 2.85 1.45 2.55 2.3 1.75 2.3; disc dark -2.3 .5 .5 -1.2 .5 .5 2.1 .5 .5;
  disc grey*1.4 -2.3 .5 .25 -1.2 .5 .25 2.1 .5 .25
car 3.9 1.5 6.4 9.4: = 26 3;
  body35 paint 1.7 -1.9 .3 1.9 .3 1.95 .8 1.2 .95 .6 1.5 -.9 1.5 -1.55 .95 -1.95 .9;
  poly glass -1.35 .97 -.25 .97 -.25 1.4 -.85 1.4; poly glass -.15 .97 1 .97 .55 1.4 -.15 1.4;
  box red -1.95 .62 -1.7 .84; box light 1.68 .6 1.93 .78; disc dark -1.2 .36 .36 1.2 .36 .36;
  disc grey*1.4 -1.2 .36 .18 1.2 .36 .18
motorcycle 2.3 1.9 4.8 6.3: = 32 4; poly grey*.6 -.75 .3 .6 .3 .55 .75 -.6 .75;
  limb grey*1.4 .15 .1 .28 -.95 .36; disc dark -.8 .38 .38 .8 .38 .38;
  disc grey -.8 .38 .17 .8 .38 .17; limb grey*1.2 .12 .8 .38 .5 1.15 .3 1.2;
  poly paint -.2 .7 .6 .62 .62 1.05 0 1.05; poly dark -.95 .85 -.1 .72 -.05 .95 -.9 1;
  poly paint -1.1 .78 -.6 .72 -.6 .88 -1.1 .96; disc light .66 .98 .13
bicycle 2.2 2.1 4.8 6.3: = 33 2; disc none -.62 .46 .46 .62 .46 .46;
  ring dark -.62 .46 .46 .37 .62 .46 .46 .37;
  limb bright .13 -.62 .46 -.28 1 .5 .98 -.02 .45 -.62 .46; limb bright .13 -.02 .45 -.3 1.02;
  limb bright .13 .62 .46 .46 1.15; limb dark .1 -.42 1.06 -.16 1.06; limb dark .1 .4 1.2 .62 1.16
rider: = 25 1; limb cloth*.5 .28 -.3 1.05 .22 .83 .05 .35; limb cloth .5 -.26 1.15 .02 1.63;
  limb skin .16 .05 1.55 .34 1.23 .55 1.25; disc paint .12 2.05 .28; disc skin .17 1.95 .2
person 1.1 1.9 4 5.2: = 24 1; limb cloth*.5 .27 -.08 .85 -.19 .45 -.25 .1;
  limb cloth*.6 .27 .08 .85 .2 .45 .17 .1; limb paint*.8 .18 -.24 1.4 -.37 1.1 -.32 .85;
  poly paint -.28 .8 .28 .8 .33 1.5 -.33 1.5; limb paint*.9 .18 .26 1.4 .37 1.1 .45 .88;
  disc hair 0 1.7 .22; disc skin .03 1.62 .17
traffic light 1.1 3.4 4.2 5.6: = 19 10; box dark -.52 1.6 .52 3.4; disc go 0 1.94 .26;
  disc yellow*.3 0 2.5 .26; disc halt 0 3.06 .26; = 17; box grey -.2 0 .2 1.6
stop sign 1.5 2.8 3.9 5.5: = 17; box grey -.2 0 .2 1.9; = 20 13; disc8 white 0 2.1 .74;
  disc8 red 0 2.1 .65; box white -.47 1.94 -.29 2.26 4 .25
round sign 1.3 2.7 3.9 5.5: = 17; box grey -.2 0 .2 1.9; = 20; disc blue 0 2.05 .65
lamp: = 17; box grey*.8 -.28 0 .28 5.2; limb grey*.8 .2 0 5.1 1.1 5.3; box light .8 5.1 1.5 5.28
tree: = 21; limb wood .4 0 0 0 2.2; disc11 leaf*.7 -.9 2.8 .7 .8 2.7 .7 0 2.6 .8;
  disc11 leaf*.85 -1 3.4 .7 1 3.3 .8 .2 3 .7; disc11 leaf -.5 3.3 .7 .6 3.7 .6 0 4 .7;
  disc11 leaf*1.15 -.5 3.9 .5 .3 3.5 .5 -.1 4.3 .4
fence: = 13; box none 0 0 8 2.2; box wood*.8 0 .45 8 .7 1 0 2 1.1;
  box wood*1.3 .05 .05 .31 2.2 19 .42
wall: = 12; box brick 0 0 8 2.2; box brick*.8 0 .36 8 .42 1 0 6 .36; box brick*.8 .4 0 .46 2.2 10 .8
park: = 22; body lawn 9 0 -.1 8 -.1 8 1.2 0 1.2
house1: = 11; body2 house 8 0 0 8 0 8 3.4 0 3.4; poly roof -.2 3.3 8.2 3.3 7.2 5.4 .8 5.4;
  box pane .5 1 1.6 2.4 4 1.95; box wood .5 0 1.6 2.3 1
house2: = 11; body house 8 0 0 8 0 8 6.4 0 6.4; poly roof -.2 6.3 8.2 6.3 7.2 8.4 .8 8.4;
  box white .4 .9 1.7 2.5 4 1.95 2 2.9; box pane .5 1 1.6 2.4 4 1.95 2 2.9; box wood 4.4 0 5.5 2.3
house3: = 11; body house 8 0 0 7.4 0 7.4 9.3 0 9.3; box white .4 3.8 1.5 5.4 4 1.8 2 2.9;
  box pane .5 3.9 1.4 5.3 4 1.8 2 2.9; box glass .4 .4 7 2.3; box paint .2 2.3 7.2 2.9
"""
_COLOURS = """
dark 222226; grey 787a7e; white eeeee8; glass 425a70; red cc181e; light faf0b4; blue 1e5ac8;
yellow f6ce28; skin e8bea0 c49270 78523c; hair 222226 6e4624 d2b46e; cloth 3c5082 8c3c3c 3c6e50;
paint c82622 2254be e8e8e6 3c4048 1e8c7a 961e5a 80b0dc e2b43c; bright c82622 80b0dc e2b43c 3cbe5a;
bus e2a81e e8781e be2c28; load d6d6ce 96704c 607c5c; stripe 1e5abe 148c5a 783296; go 28dc5a 0e3a1c;
halt f0281e 461210; leaf 3e7430 54842c 28603e 848028; brick 9c5c48 96928a;
house bea07c a86452 cec4b0 8c929e c4b078 967888; roof 803e30 56545c; pane 425a70 425a70 ecd082;
wood 865f3e 60442c; lawn 688e3e 7e8846; asphalt 5c5d61; slabs b0a8a0; seam 968f88; kerb d0c8c0;
sky 6096dc 96a4b4 5c6096; haze cee0f0 d6dade f4be8c
"""


def _split(numbers: list[float], size: int) -> list[tuple[float, ...]]:
    return list(zip(*[iter(numbers)] * size, strict=True))


_HEADED = re.findall(r"^(\w[\w ]*?)((?: [\d.]+)*):([^:]*)$", _SPRITES, re.MULTILINE)
_OBJECTS = {name: [float(n) for n in size.split()] for name, size, _ in _HEADED if size}
_SHAPES = {name: [shape.split() for shape in shapes.split(";")] for name, _, shapes in _HEADED}
_ROLES = {
    role: np.array([list(bytes.fromhex(colour)) for colour in colours], float)
    for role, *colours in map(str.split, _COLOURS.split(";"))
}


@functools.cache
def _directions(sides: int) -> np.ndarray:
    turns = (np.arange(sides + 1) + 0.5) * 2 * math.pi / sides
    return np.stack([np.cos(turns), np.sin(turns)], axis=1)


def _circle(x: float, y: float, radius: float, sides: int = 20) -> np.ndarray:
    return (x, y) + radius * _directions(sides)


def _outlines(shape: str, numbers: list[float]):
    """The polygons, as (x, y) points, of which a shape consists."""
    if shape == "poly":
        yield _split(numbers, 2)
    elif shape == "box":
        x0, y0, x1, y1, *grid = numbers
        columns, across, rows, up = grid + [1, 0, 1, 0][len(grid) :]
        for i, j in np.ndindex(int(columns), int(rows)):
            x, y = i * across, j * up
            yield [(x0 + x, y0 + y), (x1 + x, y0 + y), (x1 + x, y1 + y), (x0 + x, y1 + y)]
    elif shape == "limb":
        joints = _split(numbers[1:], 2)
        for (ax, ay), (bx, by) in zip(joints, joints[1:], strict=False):
            half = numbers[0] / 2 / math.hypot(bx - ax, by - ay)
            p, q = (ay - by) * half, (bx - ax) * half
            yield [(ax + p, ay + q), (bx + p, by + q), (bx - p, by - q), (ax - p, ay - q)]
            yield _circle(bx, by, numbers[0] / 2, 10)
    else:
        for x, y, radius, *inner in _split(numbers, 4 if shape == "ring" else 3):
            holes = [_circle(x, y, hole)[::-1] for hole in inner]
            yield np.concatenate([_circle(x, y, radius, int(shape[4:] or 20)), *holes])


class Scene:
    """The picture number `seed` (0 or more) of `size` (height, width) in pixels and what is in it.

    `image` is (H, W, 3) uint8 RGB. `segments` (H, W) int16 numbers what is seen: number n has the
    Cityscapes id `labels[n]` and the COCO id `categories[n]`, 0 if it is no object of COCO.
    """

    def __init__(self, seed: int, size: tuple[int, int]) -> None:
        height, width = size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE
        self.image = np.empty((height, width, 3), np.uint8)
        self.segments = np.zeros((height, width), np.int16)
        self.labels, self.categories = [], []
        self._rng = rng = np.random.default_rng(seed)
        self._yaw = rng.choice((-1, 1)) * rng.uniform(0.1, 0.5)
        self._focal = height * rng.uniform(1.1, 1.25)
        self._centre = width * rng.uniform(0.45, 0.55), height * rng.uniform(0.38, 0.44)
        self._eye = rng.uniform(1.8, 2.3)  # the camera's height
        chosen = rng.choice(list(_OBJECTS), rng.integers(3, 6), replace=False)
        self._draw_backdrop(rails="train" in chosen)
        self._draw_plots()
        self._draw_objects([name for name in _OBJECTS if name in chosen])
        # a photo: smooth edges, light of some colour and strength, and grain
        self.segments = np.ascontiguousarray(self.segments[::SUPERSAMPLE, ::SUPERSAMPLE])
        photo = cv2.resize(self.image, size[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
        photo = cv2.GaussianBlur(photo, (3, 3), rng.uniform(0.3, 0.7))
        photo *= rng.uniform(0.7, 1.15) * rng.uniform(0.93, 1.07, 3)
        photo += rng.uniform(2, 7) * rng.standard_normal(photo.shape, dtype=np.float32)
        self.image = np.clip(photo, 0, 255).astype(np.uint8)

    def _segment(self, label: int, category: int = 0) -> int:
        if category or label not in self.labels:
            self.labels.append(label)
            self.categories.append(category)
            return len(self.labels) - 1
        return self.labels.index(label)

    def _pick(self, role: str) -> np.ndarray:
        return np.minimum(self._rng.choice(_ROLES[role]) * self._rng.uniform(0.85, 1.12), 255)

    def _project(self, points) -> np.ndarray:
        sin, cos = math.sin(self._yaw), math.cos(self._yaw)
        seen = np.asarray(points, float) @ ((cos, 0, sin), (0, -1, 0), (-sin, 0, cos))
        depth = np.maximum(seen[:, 2:], 1.0)  # nothing in the picture is nearer
        return self._centre + (seen[:, :2] + (0, self._eye)) * (self._focal / depth)

    def _sight(self, z: float) -> tuple[float, float]:
        """The first and the last x in sight at depth z."""
        columns = np.array((0, self.image.shape[1])) - self._centre[0]
        angles = self._yaw + np.arctan(columns / self._focal)
        return tuple(z * np.tan(angles.clip(-1.2, 1.2)))

    def _fill(self, colour, segment: int | None, points) -> None:
        corners = [np.rint(self._project(points) * 2**_SUBPIXEL_BITS).astype(np.int32)]
        for target, value in ((self.image, colour), (self.segments, segment)):
            if value is not None:
                cv2.fillPoly(target, corners, value, cv2.LINE_8, _SUBPIXEL_BITS)

    def _draw(self, name: str, x: float, z: float, way: int = 1, scale: float = 1.0) -> None:
        """Draw a sprite that heads to the right (way 1) or to the left (-1)."""
        pick = functools.cache(self._pick)  # one shade of a colour for all of it

        def place(points, depth=0.0):
            placed = np.full((len(points), 3), z + scale * depth)
            placed[:, :2] = (x, 0) + np.asarray(points) * (way * scale, scale)
            return placed

        for shape, colour, *words in _SHAPES[name]:
            numbers = [float(word) for word in words]
            if shape == "=":
                segment = self._segment(int(colour), *map(int, numbers))
                continue
            role, _, factor = colour.partition("*")
            rgb = None if role == "none" else pick(role) * float(factor or 1)
            if shape.startswith("body"):
                panes, _, hidden = shape[4:].partition("-")
                depth, profile = numbers[0], _split(numbers[1:], 2)
                for i, edge in enumerate(zip(profile, profile[1:] + profile[:1], strict=True)):
                    (ax, ay, _), (bx, by, _) = place(edge)
                    # the normal is (rise, -run), mirrored with the sprite: does the camera see it?
                    seen = way * ((by - ay) * -ax + (bx - ax) * (ay - self._eye)) > 0
                    if seen and str(i) not in hidden:
                        side = pick("glass") if str(i) in panes else rgb
                        side = side * (1.15 if abs(bx - ax) > abs(by - ay) else 0.7)
                        ends = place(edge), place(edge[::-1], depth)
                        self._fill(side, segment, np.concatenate(ends))
                shape, numbers = "poly", numbers[1:]
            for outline in _outlines(shape, numbers):
                self._fill(rgb, segment, place(outline))

    def _draw_backdrop(self, rails: bool) -> None:
        """The sky, and below the horizon the ground, pixel by pixel."""
        rng, height, width = self._rng, *self.segments.shape
        top, low = np.array((self._pick("sky"), self._pick("haze")))
        share = np.clip(np.arange(height) / self._centre[1], 0, 1)[:, None, None]
        self.image[:] = top + (low - top) * share
        self.segments[:] = self._segment(23)
        horizon = math.ceil(self._centre[1]) + 1
        rows = np.arange(horizon, height, dtype=np.float32)[:, None] - self._centre[1]
        columns = np.arange(width, dtype=np.float32) - self._centre[0]
        depth = np.float32(self._focal * self._eye) / rows
        aside = columns * depth / self._focal
        x = aside * math.cos(self._yaw) + depth * math.sin(self._yaw)
        z = depth * math.cos(self._yaw) - aside * math.sin(self._yaw)
        verge = rng.uniform(3.0, 3.7) if rng.random() < 0.6 else _NEAR_KERB
        road = (z > _NEAR_KERB) & (z < _FAR_KERB)
        crossing = (abs(x - rng.uniform(-6, 6)) < 1.5) & (rng.random() < 0.4)
        kinds = (
            ("slabs", 8, z < _FRONT),
            ("seam", 8, (z < _FRONT) & (x % 1 < 0.04)),
            ("lawn", 22, (z >= _FRONT) | ((z > verge) & (z < _NEAR_KERB))),
            ("kerb", 8, (z > _NEAR_KERB - 0.2) & (z < _FAR_KERB + 0.2)),
            ("asphalt", 7, road),
            ("white", 7, road & ~crossing & (abs(z - 8.1) < 0.1) & (x % 3 < 1.6)),
            ("white", 7, road & crossing & (z % 1 < 0.5)),
            ("grey", 7, (abs(z - 9.5) < 0.06 * rails) | (abs(z - 11) < 0.06 * rails)),
        )
        painted = np.zeros(z.shape, np.int8)
        for number, (_, _, where) in enumerate(kinds):
            painted[where] = number
        colours = np.array([self._pick(role) for role, _, _ in kinds]).astype(np.uint8)
        segments = np.array([self._segment(n) for _, n, _ in kinds], np.int16)
        np.take(colours, painted, axis=0, out=self.image[horizon:])
        np.take(segments, painted, out=self.segments[horizon:])

    def _draw_plots(self) -> None:
        """Houses, gardens and parks along the far pavement, and its trees, from far to near."""
        rng = self._rng
        first, last = self._sight(_FRONT + 3)
        plots = np.arange(first - rng.uniform(0, 8), last, 8.0)
        for left in plots[np.argsort(-abs(plots + 4), kind="stable")]:
            front = rng.choice(("", "park", "wall", "fence"), p=(0.34, 0.2, 0.23, 0.23))
            if front != "park":
                self._draw(f"house{rng.integers(1, 4)}", left, _FRONT + (3.5 if front else 0.2))
            if front:
                for x in left + rng.uniform(1, 7, 2):
                    self._draw("tree", x, rng.uniform(14.5, 16.5), 1, rng.uniform(0.9, 1.2))
                self._draw(front, left, _FRONT)
        for x in rng.uniform(first, last, rng.integers(2, 6)):
            name = rng.choice(("tree", "lamp"), p=(0.7, 0.3))
            self._draw(name, x, rng.uniform(11.9, 12.8), rng.choice((-1, 1)))

    def _draw_objects(self, names: list[str]) -> None:
        """Put each where there is room for it and hardly anything is hidden."""
        rng, placed, free = self._rng, [], np.ones(self.segments.shape, bool)
        for name in names:
            length, height, near, far = _OBJECTS[name]
            for _ in range(40):
                z, scale = rng.uniform(near, far), rng.uniform(0.9, 1.1)
                x, half = rng.uniform(*self._sight(z)), scale * length / 2
                ends = [(x - half, scale * height, z), (x + half, 0, z)]
                (left, top), (right, low) = self._project(ends).astype(int)
                room = free[max(top, 0) : max(low, 0), max(left, 0) : max(right, 0)]
                tall, seen = (low - top) / len(free), room.sum() / (right - left) / (low - top)
                if 0.15 < tall < 0.6 and seen > 0.85:
                    room[:] = False
                    placed.append((z, name, x, rng.choice((-1, 1)), scale))
                    shadow = [(x + p, 0, z + 0.5 + q) for p, q in _circle(0, 0, half) * (1, 0.3)]
                    self._fill((58, 58, 62), None, shadow)
                    break
        for z, name, x, way, scale in sorted(placed, reverse=True):
            self._draw(name, x, z, way, scale)
            if name in ("motorcycle", "bicycle") and rng.random() < 0.75:
                self._draw("rider", x, z, way, scale)
