"""What flies: multirotors, birds, aeroplanes and helicopters as polygons, for the target and for look-alikes."""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from input_pipeline.simulator import multirotor
from input_pipeline.simulator.motion import smooth_curve
from input_pipeline.simulator.raster import Paints

KINDS = ("drone", "bird", "aeroplane", "helicopter")
_Parts = tuple[list[ArrayLike], Paints, np.ndarray | None]  # As `outline`, before the thing is turned.
_TURNS = np.linspace(0, 2 * np.pi, 14, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURNS), np.sin(_TURNS)], axis=1)


@dataclasses.dataclass(frozen=True)
class Flyer:
  """One flying thing over a sequence.

  Attributes:
    kind: one of `KINDS`.
    view: of an aeroplane: "side", "front" or "below"; empty for the others.
    facing: +1 or -1, its nose points to the right or to the left.
    yaw, elevation, roll: float64 [T], radians; only roll matters for things other than drones.
    phase, rate: of a bird's wing beat or a rotor, radians and radians per frame.
    warmth: heat of body, wings (or arms) and engine, relative to the contrast; of either sign.
    model: a drone's parts; None for the others.
  """

  kind: str
  view: str
  facing: float
  yaw: np.ndarray
  elevation: np.ndarray
  roll: np.ndarray
  phase: float
  rate: float
  warmth: tuple[float, float, float]
  model: multirotor.Multirotor | None


def draw_flyer(rng: np.random.Generator, kind: str, num_frames: int, aspect: float, polarity: float) -> Flyer:
  """Draws the looks and the attitude of one flying thing.

  Args:
    rng: random generator.
    kind: one of `KINDS`.
    num_frames: T.
    aspect: w/h of its box.
    polarity: +1 for one warmer than its background, -1 for a colder one, whose engine may still be warm.
  """
  elevation = multirotor.view_elevation(aspect) + 0.15 * (smooth_curve(rng, num_frames) - 0.5)
  yaw = rng.uniform(0, 2 * np.pi) + rng.normal(0, 1.0) * (smooth_curve(rng, num_frames) - 0.5)
  roll = rng.normal(0, 0.05) + rng.uniform(0, 0.35) * (smooth_curve(rng, num_frames, 6) - 0.5)
  views = ("side", "front") if aspect > 1.8 else ("below", "side")
  engine = rng.uniform(1.0, 2.5) * (1.0 if polarity > 0 or rng.random() < 0.4 else -1.0)
  warmth = polarity * rng.uniform(0.8, 1.2), polarity * rng.uniform(0.4, 1.0), engine
  return Flyer(kind, str(rng.choice(views)) if kind == "aeroplane" else "", rng.choice([-1.0, 1.0]), yaw, elevation,
               roll, rng.uniform(0, 6.3), rng.uniform(0.4, 1.6), warmth,
               multirotor.draw_multirotor(rng, polarity) if kind == "drone" else None)


def outline(flyer: Flyer, t: int) -> tuple[list[np.ndarray], Paints, np.ndarray | None]:
  """The silhouette in frame `t`.

  Returns:
    (polygons, paints, extent) for `raster.render_polygons`, y pointing down. A bird's extent [2, 2] is that of all
    its wing positions, so that it does not breathe inside its box; None for the others: that of the polygons.
  """
  if flyer.model is not None:
    return *multirotor.project(flyer.model, flyer.yaw[t], flyer.elevation[t], flyer.roll[t]), None
  parts = {"bird": _bird, "aeroplane": _aeroplane, "helicopter": _helicopter}[flyer.kind]
  polygons, paints, extent = parts(flyer, flyer.phase + flyer.rate * t)
  c, s = np.cos(flyer.roll[t]), np.sin(flyer.roll[t])
  turn = np.array([[c * flyer.facing, s * flyer.facing], [-s, c]])
  return [np.asarray(polygon, float) @ turn for polygon in polygons], paints, extent


def _ellipse(x: float, y: float, a: float, b: float) -> np.ndarray:
  return _CIRCLE * [a, b] + [x, y]


def _bird(flyer: Flyer, phase: float) -> _Parts:
  """Two wings that beat about a body."""
  body, wing, _engine = flyer.warmth
  lift = 0.5 * np.sin(phase)
  fold = 0.75 + 0.25 * np.cos(phase)  # The tips come in when the wings are up or down.
  wings = [[[0, -0.05], [side * 0.5 * fold, -lift * 0.6 - 0.09], [side * fold, -lift],
            [side * 0.45 * fold, -lift * 0.5 + 0.09], [0, 0.08]] for side in (-1, 1)]
  torso = [[-0.22, 0.06], [-0.1, -0.07], [0.14, -0.08], [0.28, 0.0], [0.1, 0.12]]
  return [*wings, torso], [(1, wing), (1, wing), (1, 1.3 * body)], np.array([[-1.0, -0.6], [1.0, 0.6]])


def _aeroplane(flyer: Flyer, _phase: float) -> _Parts:
  body, wing, engine = flyer.warmth
  if flyer.view == "front":
    engines = [_ellipse(side * 0.35, 0.1, 0.06, 0.07) for side in (-1, 1)]
    span = [[-1, -0.08], [0, 0.04], [1, -0.08], [0, 0.1]]
    fin = [[-0.02, -0.4], [0.02, -0.4], [0.03, 0], [-0.03, 0]]
    return [span, fin, _ellipse(0, 0, 0.13, 0.15), *engines], [(1, wing), (1, wing), (1, body), (1, engine),
                                                              (1, engine)], None
  if flyer.view == "below":
    hull = [[-1, -0.05], [0.8, -0.09], [1.0, 0.0], [0.8, 0.09], [-1, 0.05]]
    wings = [[[0.25, 0], [-0.25, side * 0.95], [-0.4, side * 0.95], [-0.15, 0]] for side in (-1, 1)]
    tails = [[[-0.75, 0], [-0.95, side * 0.33], [-1, side * 0.33], [-0.92, 0]] for side in (-1, 1)]
    engines = [_ellipse(0.05, side * 0.35, 0.1, 0.05) for side in (-1, 1)]
    return [*wings, *tails, hull, *engines], [(1, wing)] * 4 + [(1, body)] + [(1, engine)] * 2, None
  hull = [[-1, -0.03], [-0.75, -0.08], [0.8, -0.08], [1, 0.02], [0.75, 0.09], [-0.6, 0.08]]
  tail = [[-1, -0.42], [-0.85, -0.42], [-0.62, -0.04], [-0.93, -0.02]]
  wing_part = [[0.15, 0], [-0.3, 0.22], [-0.5, 0.22], [-0.2, 0]]
  return [tail, hull, wing_part, _ellipse(0, 0.12, 0.14, 0.06)], [(1, wing), (1, body), (1, wing), (1, engine)], None


def _helicopter(flyer: Flyer, phase: float) -> _Parts:
  """Cabin, tail boom, a rotor disc that one looks through, and a warm engine below it."""
  body, wing, engine = flyer.warmth
  reach = 0.75 + 0.25 * abs(np.sin(phase))
  boom = [[-1, -0.12], [-0.1, -0.16], [-0.1, 0.1], [-1, -0.04]]
  fin = [[-1.05, -0.38], [-0.93, -0.38], [-0.88, 0.02], [-1.0, 0.02]]
  rotor = [[-0.9 * reach, -0.43], [0.05, -0.4], [reach, -0.43], [0.05, -0.46]]
  mast = [[0, -0.42], [0.08, -0.42], [0.1, -0.15], [-0.02, -0.15]]
  skid = [[-0.2, 0.33], [0.5, 0.33], [0.5, 0.37], [-0.2, 0.37]]
  return [rotor, boom, fin, mast, skid, _ellipse(0.2, 0.05, 0.38, 0.25), _ellipse(0.0, -0.15, 0.2, 0.1)], [
      (0.5, wing), (1, body), (1, wing), (1, body), (1, wing), (1, body), (1, engine)], np.array(
          [[-1.05, -0.46], [1.0, 0.4]])
