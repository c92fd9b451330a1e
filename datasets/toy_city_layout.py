"""Chance decides here what stands where in a toy street; the drawing itself is done elsewhere."""

from collections.abc import Callable
from functools import partial

import numpy as np

from datasets import toy_city_objects as objects
from datasets import toy_city_street as scenery
from datasets import toy_city_vehicles as vehicles
from datasets.toy_city_canvas import SUPERSAMPLE, Camera, Canvas, Light, Placement
from datasets.toy_city_street import LANE, Street

VIEW_END = 80.0


class Stage:
    """Collects what stands in the street, to be drawn from far to near over its shadows."""

    def __init__(self, canvas: Canvas, street: Street, rng: np.random.Generator) -> None:
        self.canvas = canvas
        self.street = street
        self.rng = rng
        self._draws: list[Callable[[], None]] = []
        self._footprints: list[np.ndarray] = []
        self._cast: list[np.ndarray] = []

    def add(
        self,
        draw: Callable[[], None],
        at: Placement,
        half_width: float,
        half_length: float,
        height: float,
    ) -> None:
        """Put an object on the stage; its half sizes and height are in metres."""
        w, k = half_width, half_length
        foot = at([(-w, 0, -k), (w, 0, -k), (w, 0, k), (-w, 0, k)])
        sun = self.canvas.light.sun
        drift = -np.array([sun[0], 0.0, sun[2]]) / sun[1] * height
        self._draws.append(draw)
        self._footprints.append(foot)
        self._cast.append(np.concatenate([foot, foot + drift]))

    def perform(self, draw_backdrop: Callable[[], None]) -> None:
        """Cast the shadows, then draw the backdrop and everything that was added."""
        focal = self.canvas.camera.focal
        self.canvas.darken(self._cast, self.canvas.light.shadow, 0.003 * focal)
        self.canvas.darken(self._footprints, 0.5, 0.004 * focal)
        draw_backdrop()
        if self._draws:
            for i in painting_order(np.stack(self._footprints), self.canvas.camera.x):
                self._draws[i]()


def painting_order(footprints: np.ndarray, camera_x: float) -> list[int]:
    """Order (N, 4, 3) footprints such that none comes before one that it hides.

    Distance alone does not tell: a person on the pavement may be nearer than the middle, even
    than the rear of a long bus that still stands in between.
    """
    x, z = footprints[..., 0] - camera_x, np.maximum(footprints[..., 2], 0.5)
    left, right, near, far = x.min(1), x.max(1), z.min(1), z.max(1)
    # Seen from the camera, directions x / z overlap where one can hide the other at all.
    bearing = np.stack([left / near, left / far, right / near, right / far])
    first, last = bearing.min(0) - 0.01, bearing.max(0) + 0.01
    meet = (first[:, None] < last) & (first < last[:, None])
    beyond = near[:, None] >= far
    beside = ((left[:, None] >= right) & (right > 0)) | ((right[:, None] <= left) & (left < 0))
    farther = near[:, None] > near
    # behind[i, j]: i has to be painted before j.
    behind = meet & (beyond | (~beyond.T & (beside | (~beside.T & farther))))
    np.fill_diagonal(behind, False)
    order, waiting = [], np.argsort(-near)
    while len(waiting):
        free = ~behind[np.ix_(waiting, waiting)].any(axis=0)
        # Objects that stand within each other have no right order: take the farthest.
        chosen = int(np.argmax(free)) if free.any() else 0
        order.append(int(waiting[chosen]))
        waiting = np.delete(waiting, chosen)
    return order


def pick_light(rng: np.random.Generator) -> tuple[Light, float]:
    """A light of day, dull weather or dusk, and the share of the sky under clouds."""
    azimuth = rng.uniform(0, 2 * np.pi)
    kind = rng.choice(3, p=[0.5, 0.28, 0.22])
    rise = np.deg2rad(rng.uniform(*((32, 62), (45, 70), (22, 30))[kind]))
    sun = (float(np.cos(rise) * np.sin(azimuth)), float(np.sin(rise)),
           float(np.cos(rise) * np.cos(azimuth)))  # fmt: skip
    if kind == 0:
        light = Light((1.06, 1.03, 0.97), (194, 208, 222), 380.0, (78, 132, 202), (190, 214, 234),
                      sun, 0.5, 0.04)  # fmt: skip
        return light, rng.uniform(0.0, 0.8)
    if kind == 1:
        light = Light((0.88, 0.9, 0.94), (196, 200, 206), rng.uniform(150, 260), (160, 168, 178),
                      (208, 210, 212), sun, 0.12, 0.3)  # fmt: skip
        return light, rng.uniform(0.6, 1.0)
    light = Light((0.62, 0.54, 0.56), (160, 126, 122), 300.0, (58, 68, 116), (240, 168, 118), sun,
                  0.24, 0.85)  # fmt: skip
    return light, rng.uniform(0.2, 0.7)


def pick_street(rng: np.random.Generator) -> Street:
    """A street of two or four lanes, with room to park at most kerbs of narrow ones."""
    lanes = 2 if rng.random() < 0.65 else 4
    parking = 2.3 if rng.random() < 0.75 else 0.3
    road = LANE * lanes / 2 + parking
    verge = rng.uniform(1.2, 2.2) if rng.random() < 0.4 else 0.0
    edge = road + verge + rng.uniform(2.2, 4.2)
    crossing = None
    if rng.random() < 0.62:
        near = rng.uniform(13.0, 30.0)
        crossing = (near, near + rng.uniform(7.5, 11.0))
    return Street(road, verge, edge, lanes, crossing)


def pick_camera(size: tuple[int, int], street: Street, rng: np.random.Generator) -> Camera:
    """A camera in one of the right lanes, as behind the windscreen of a car."""
    height, width = size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE
    own = street.lane_centres()[street.lanes // 2 :]
    x = own[int(rng.integers(len(own)))] + rng.uniform(-0.4, 0.4)
    focal = width * rng.uniform(0.9, 1.1)
    return Camera(focal, width * rng.uniform(0.42, 0.58), height * rng.uniform(0.4, 0.5), x,
                  rng.uniform(1.4, 2.1))  # fmt: skip


def draw_street(size: tuple[int, int], rng: np.random.Generator) -> Canvas:
    """Draw a whole scene for a picture of `size` (height, width)."""
    light, clouds = pick_light(rng)
    street = pick_street(rng)
    canvas = Canvas(size, pick_camera(size, street, rng), light)
    stage = Stage(canvas, street, rng)
    scenery.draw_sky(canvas, clouds, rng)
    scenery.draw_ground(canvas, street, rng)
    tram_lane = int(rng.integers(street.lanes)) if rng.random() < 0.3 else -1
    if tram_lane >= 0:
        scenery.draw_rails(canvas, street.lane_centres()[tram_lane])
    canvas.veil_ground()
    if street.parked_room() and rng.random() < 0.75:
        _park_cars(stage)
    _fill_lanes(stage, tram_lane)
    _fill_crossing(stage)
    for side in (-1, 1):
        _furnish_pavement(stage, side)
        _add_walkers(stage, side)
    stage.perform(partial(_draw_backdrop, canvas, street, rng))
    return canvas


def _draw_backdrop(canvas: Canvas, street: Street, rng: np.random.Generator) -> None:
    scenery.draw_skyline(canvas, rng)
    town = rng.uniform(0.35, 1.0)
    lots = []
    for side in (-1, 1):
        near = rng.uniform(1.6, 6.0)
        while near < 110.0:
            far = near + rng.uniform(8.0, 20.0)
            if street.is_crossing(near, far, 2.5):
                start, end = street.crossing
                if near < start - 6.0:
                    far = start - 2.4
                else:
                    near, far = end + 2.4, end + rng.uniform(12.0, 20.0)
            lots.append((near, far, side))
            near = far + (rng.uniform(1.5, 5.0) if rng.random() < 0.2 else 0.0)
    for near, far, side in sorted(lots, reverse=True):
        if rng.random() < town:
            scenery.draw_building(canvas, side, side * street.edge, near, far, rng)
        else:
            _draw_garden(canvas, side, street.edge, near, far, rng)


def _draw_garden(
    canvas: Canvas, side: int, edge: float, near: float, far: float, rng: np.random.Generator
) -> None:
    if rng.random() < 0.45:
        set_back = edge + rng.uniform(7.0, 11.0)
        scenery.draw_building(canvas, side, side * set_back, near, far, rng)
    for z in sorted(rng.uniform(near + 1, far, int(rng.integers(1, 5))).tolist(), reverse=True):
        at = Placement(side * (edge + rng.uniform(2.2, 5.5)), max(z, 5.0))
        if rng.random() < 0.6:
            scenery.draw_tree(canvas, at, rng.uniform(5.0, 11.0), rng)
        else:
            scenery.draw_bush(canvas, at, rng.uniform(1.5, 3.5), rng.uniform(1.0, 2.4), rng)
    border = rng.random()
    if border < 0.4:
        scenery.draw_wall(canvas, side * edge, near, far, rng)
    elif border < 0.8:
        scenery.draw_fence(canvas, side * edge, near, far, rng)


def _park_cars(stage: Stage) -> None:
    rng, street = stage.rng, stage.street
    for side in (-1, 1):
        z = rng.uniform(3.0, 12.0)
        while z < VIEW_END:
            body = _pick_car(rng)
            if not street.is_crossing(z, z + body.length, 6.0) and rng.random() < 0.7:
                x = side * (street.road - 0.25 - body.half_width)
                yaw = (0.0 if side > 0 else np.pi) + rng.uniform(-0.03, 0.03)
                _add_body(stage, body, Placement(x, z + 0.5 * body.length, yaw))
            z += body.length + rng.uniform(0.7, 2.0)


def _pick_car(rng: np.random.Generator) -> vehicles.Body:
    cars = (vehicles.SEDAN, vehicles.HATCHBACK, vehicles.SUV, vehicles.VAN)
    return cars[rng.choice(4, p=[0.34, 0.3, 0.22, 0.14])]


def _add_body(stage: Stage, body: vehicles.Body, at: Placement) -> None:
    draw = partial(vehicles.draw_car, stage.canvas, body, at, stage.rng)
    stage.add(draw, at, body.half_width, 0.5 * body.length, body.height)


def _fill_lanes(stage: Stage, tram_lane: int) -> None:
    rng, street = stage.rng, stage.street
    centres = street.lane_centres()
    traffic = rng.uniform(8.0, 30.0)
    for lane, x in enumerate(centres):
        away = x > 0
        ahead = abs(x - stage.canvas.camera.x) < 1.5
        z = rng.uniform(9.0, 22.0) if ahead else rng.uniform(5.0, 16.0)
        if lane == tram_lane:
            z += rng.uniform(2.0, 12.0)
        while z < VIEW_END:
            z += _add_traffic(stage, x, z, away, lane == tram_lane) + rng.uniform(3.0, traffic)


def _add_traffic(stage: Stage, x: float, near: float, away: bool, on_rails: bool) -> float:
    """Put one road user's rear or front at depth `near`; returns the length to keep free."""
    rng, street = stage.rng, stage.street
    kind = rng.random()
    yaw = (0.0 if away else np.pi) + rng.uniform(-0.05, 0.05)
    x = x + rng.uniform(-0.3, 0.3)
    if on_rails and kind < 0.65:
        body = vehicles.TRAM
    elif kind < 0.7:
        body = _pick_car(rng)
    elif kind < 0.78:
        body = vehicles.CITY_BUS
    elif kind < 0.86:
        body = vehicles.TRUCK_LOAD
    else:
        body = None
    length = {None: 2.0, vehicles.TRUCK_LOAD: 7.6}.get(body) or body.length
    if street.is_crossing(near, near + length, 5.0):
        return length
    if body is None:
        _add_cycle(stage, x + (0.7 if away else -0.7), near + 1.0, away)
        return length
    at = Placement(x, near + 0.5 * length, yaw)
    if body is vehicles.TRUCK_LOAD:
        draw = partial(vehicles.draw_truck, stage.canvas, at, rng)
        stage.add(draw, at, body.half_width, 0.5 * length, body.height)
    else:
        _add_body(stage, body, at)
    return length


def _add_cycle(stage: Stage, x: float, z: float, away: bool) -> None:
    rng = stage.rng
    label = vehicles.MOTORCYCLE if rng.random() < 0.4 else vehicles.BICYCLE
    # Straight ahead a flat cycle would be a line: it always steers a little to one side.
    turn = rng.choice([-1, 1]) * rng.uniform(0.55, 1.0)
    at = Placement(x, z, (0.0 if away else np.pi) + turn)
    draw = partial(objects.draw_cycle, stage.canvas, at, label, True, rng)
    stage.add(draw, at, 0.25, 0.85, 1.7)


def _fill_crossing(stage: Stage) -> None:
    rng, street = stage.rng, stage.street
    if street.crossing is None:
        return
    near, far = street.crossing
    lights = rng.random() < 0.62
    state = int(rng.choice(3, p=[0.5, 0.1, 0.4]))
    if lights:
        for side, z in ((1, near - 3.8), (-1, near - 3.8), (1, far + 3.6), (-1, far + 3.6)):
            at = Placement(side * (street.road + 0.5), z)
            draw = partial(objects.draw_traffic_light, stage.canvas, at, side, state, rng)
            stage.add(draw, at, 0.1, 0.1, 3.4)
    elif rng.random() < 0.7:
        at = Placement(street.road + 0.6, near - 4.2)
        stage.add(partial(objects.draw_stop_sign, stage.canvas, at), at, 0.1, 0.1, 2.9)
    if state == 0 or not lights:
        for share, yaw in ((0.27, -np.pi / 2), (0.73, np.pi / 2)):
            z = near + share * (far - near)
            if rng.random() < 0.45:
                span = street.edge - 2.6
                at = Placement(rng.uniform(-span, span), z, yaw)
                if rng.random() < 0.25:
                    _cross_on_cycle(stage, at)
                else:
                    _add_body(stage, _pick_car(rng), at)
    for z in (near - 2.1, far + 2.1):
        for _ in range(int(rng.integers(0, 4))):
            _add_person(stage, rng.uniform(-street.road, street.road), z + rng.uniform(-0.9, 0.9))


def _cross_on_cycle(stage: Stage, at: Placement) -> None:
    label = vehicles.MOTORCYCLE if stage.rng.random() < 0.35 else vehicles.BICYCLE
    draw = partial(objects.draw_cycle, stage.canvas, at, label, True, stage.rng)
    stage.add(draw, at, 0.25, 0.85, 1.7)


def _add_person(stage: Stage, x: float, z: float) -> None:
    rng, at = stage.rng, Placement(x, z)
    height = rng.uniform(1.0, 1.35) if rng.random() < 0.12 else rng.uniform(1.55, 1.9)
    draw = partial(objects.draw_person, stage.canvas, at, height, rng)
    stage.add(draw, at, 0.22, 0.15, height)


def _add_walkers(stage: Stage, side: int) -> None:
    rng, street = stage.rng, stage.street
    inner, outer = street.road + street.verge + 0.5, street.edge - 0.4
    for _ in range(int(rng.poisson(3.0))):
        x, z = side * rng.uniform(inner, outer), 6.0 + 44.0 * rng.random() ** 1.4
        _add_person(stage, x, z)
        if rng.random() < 0.3:
            _add_person(stage, x + 0.55, z + rng.uniform(-0.3, 0.3))


def _furnish_pavement(stage: Stage, side: int) -> None:
    rng, street, canvas = stage.rng, stage.street, stage.canvas
    kerb = side * (street.road + 0.55)
    trees = rng.random() < (0.75 if street.verge else 0.35)
    z = rng.uniform(7.0, 14.0)
    while z < VIEW_END:
        at = Placement(kerb, z)
        if not street.is_crossing(z, z, 3.0):
            kind = rng.random()
            if kind < 0.25:
                draw = partial(objects.draw_street_lamp, canvas, at, side, rng)
                stage.add(draw, at, 0.08, 0.08, 7.0)
            elif kind < 0.5:
                stage.add(partial(objects.draw_sign, canvas, at, rng), at, 0.06, 0.06, 2.9)
            elif kind < 0.6:
                stage.add(partial(objects.draw_pole, canvas, at, 1.0, 0.12), at, 0.06, 0.06, 1.0)
            elif trees:
                at = Placement(side * (street.road + 0.5 * max(street.verge, 1.4)), z)
                draw = partial(scenery.draw_tree, canvas, at, rng.uniform(5.0, 9.0), rng)
                stage.add(draw, at, 0.9, 0.9, 5.0)
        z += rng.uniform(4.0, 10.0)
    for _ in range(int(rng.poisson(1.1))):
        _lean_cycles(stage, side)


def _lean_cycles(stage: Stage, side: int) -> None:
    rng, street = stage.rng, stage.street
    z = rng.uniform(7.0, 32.0)
    label = vehicles.BICYCLE if rng.random() < 0.8 else vehicles.MOTORCYCLE
    for i in range(int(rng.integers(1, 4))):
        x = side * (street.edge - 0.9)
        yaw = side * rng.uniform(0.9, 1.5)
        at = Placement(x, z + 0.7 * i, yaw)
        if street.is_crossing(at.z, at.z, 3.0):
            continue
        draw = partial(objects.draw_cycle, stage.canvas, at, label, False, rng)
        stage.add(draw, at, 0.2, 0.8, 1.0)
