"""Writes small data sets for tests."""

import json

import cv2
import numpy as np

BOXES = [[10, 12, 8, 6], [11, 12, 8, 6], [12, 13, 8, 6]]


def write_images(folder, count=3, size=(64, 48), names="{:06d}.jpg", start=1):
  """Grey ramps; frame t has the mean grey level of about 10 (t + 1)."""
  folder.mkdir(parents=True, exist_ok=True)
  for t in range(count):
    image = np.full(size[::-1], 10 * (t + 1) % 256, np.uint8)
    # imencode + write_bytes: imwrite does not take every file name.
    (folder / names.format(t + start)).write_bytes(cv2.imencode(".jpg", image)[1].tobytes())


def write_video(path, count=3, size=(64, 48)):
  path.parent.mkdir(parents=True, exist_ok=True)
  writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, size)
  for t in range(count):
    writer.write(np.full((size[1], size[0], 3), 10 * (t + 1) % 256, np.uint8))
  writer.release()


def write_json(path, boxes, exist=None, key="gt_rect", **more):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps({key: boxes} | ({} if exist is None else {"exist": exist}) | more))


def write_text(path, text):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(text.encode() if isinstance(text, str) else text)
  return path
